"""One change for all images: patches to print, and perturbations to add."""
