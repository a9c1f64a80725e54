"""Universal attacks: adversarial patches and universal perturbations."""
