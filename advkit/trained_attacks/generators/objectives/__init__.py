"""Training objectives that use a perturbation generator."""
