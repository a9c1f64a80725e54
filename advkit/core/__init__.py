"""Shared utilities: errors, configuration, registries, random numbers, files, runs, norms."""
