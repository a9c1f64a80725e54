"""The model registry: architectures by name, cards, checkpoints, the local store, and loading."""
