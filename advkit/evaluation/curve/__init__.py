"""Robust accuracy at every eps, from the nearest success on each image."""
