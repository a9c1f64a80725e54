"""Robust accuracy: the cascade of attacks, its crash-safe ledger, and the result with its sanity checks."""
