"""Certified accuracy, a lower bound of robust accuracy: images whose whole ball is classified correctly."""
