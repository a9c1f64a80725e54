"""Robust accuracy under rotations and translations."""
