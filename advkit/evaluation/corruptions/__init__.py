"""Accuracy under common corruptions."""
