"""Robust accuracy from below: images on which nothing inside the ball can be misclassified."""
