"""The model registry: architectures by name, cards, checkpoints, the local store, and one door to load."""
