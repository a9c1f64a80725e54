"""The model registry: architectures by name, cards, checkpoint files, the local store, and one door to load."""
