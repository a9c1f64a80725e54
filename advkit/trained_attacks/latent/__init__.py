"""Attacks in the latent space of a generator, and GAN inversion."""
