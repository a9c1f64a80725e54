"""Whether a model meets what a policy requires."""
