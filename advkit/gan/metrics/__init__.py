"""One file per metric of generated images; the decorator enrols it."""
