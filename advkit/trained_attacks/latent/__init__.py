"""From images back to the latent vectors of which a generator makes them."""
