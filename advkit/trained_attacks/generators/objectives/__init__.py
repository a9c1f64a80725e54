"""Training objectives with a perturbation generator inside."""
