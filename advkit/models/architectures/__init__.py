"""One file per architecture (or pair); the decorator enrols it."""
