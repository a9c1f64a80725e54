"""One file per attack loss; the decorator enrols it."""
