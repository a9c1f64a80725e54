"""Attacks that first train or search something: a network, one change for all images, a copy of the model."""
