"""One file per attack loss; the decorator registers it."""
