"""Bounds of a network's outputs on a ball of images: its graph of layers, and bounds of every node."""
