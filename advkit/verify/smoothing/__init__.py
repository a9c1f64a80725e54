"""Randomized smoothing: a classifier that returns the most frequent class of another one under noise."""
