"""One file per check; the decorator enrols it."""
