"""Regularisers of a discriminator; a decorator registers each."""
