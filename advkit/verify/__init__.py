"""Verification: bounds, certification, randomized smoothing."""
