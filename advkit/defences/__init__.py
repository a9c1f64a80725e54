"""Detectors and purifiers, each judged by an attack that knows of it."""
