"""GAN losses; a decorator registers each."""
