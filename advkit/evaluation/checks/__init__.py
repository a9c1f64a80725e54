"""One file per check; the decorator registers it."""
