"""Perturbation generators (AdvGAN): adversarial examples in one pass, and their training."""
