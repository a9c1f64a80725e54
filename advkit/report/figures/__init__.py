"""Figures, one file for each kind of result."""
