"""How much accuracy survives turning and shifting the images."""
