"""Detectors and purifiers, each judged by adaptive attacks."""
