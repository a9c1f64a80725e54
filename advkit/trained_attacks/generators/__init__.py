"""Networks that make adversarial examples in one pass, and their training against a classifier."""
