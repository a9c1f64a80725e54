"""Proofs: bounds, certification, randomized smoothing."""
