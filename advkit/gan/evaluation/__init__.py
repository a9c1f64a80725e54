"""Generators measured by the judge: one, or several side by side."""
