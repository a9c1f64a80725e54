"""One file per GAN loss; the decorator enrols it."""
