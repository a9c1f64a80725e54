"""Comparing models image by image, from the results of their runs."""
