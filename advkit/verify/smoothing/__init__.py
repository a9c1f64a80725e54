"""Randomised smoothing: a classifier that answers what another one says most often of noisy copies."""
