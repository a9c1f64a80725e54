"""Robust accuracy at every eps, from the smallest adversarial perturbation of each image."""
