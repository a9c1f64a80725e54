"""MART: misclassified images count more."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.attacks.loss import picked, strongest_other
from advkit.core.config import Fraction
from advkit.training.inner import Attacker, ChosenAttack
from advkit.training.objective import Batch, Passes, objective
from advkit.training.objectives.trades import divergences

LEAST = 1e-4
"""Added to 1 - p inside a logarithm, as in the authors' code: the term stays below 9.3."""


def boosted(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) boosted cross-entropy (section 3.2) of logits (N, K): -log p(y) - log(1 - p of the strongest other
    class). The second part asks for a margin."""
    other = strongest_other(logits.softmax(1), y)
    return cross_entropy(logits, y, reduction="none") - (1 - other + LEAST).log()


@objective(
    "mart",
    summary="boosted cross-entropy, and a divergence weighted by misclassification (MART)",
    source="Wang et al., Improving Adversarial Robustness Requires Revisiting Misclassified Examples, 2020",
)
class Mart(ChosenAttack):
    """Section 3.2: BCE(f(x'), y) + beta * KL(f(x) || f(x')) * (1 - p(y | x)), averaged over the batch; the
    attacker climbs the cross-entropy."""

    class Config(Attacker):
        """Parameters."""

        steps: int = Field(10, ge=1)
        """Gradient steps of the attacker."""
        beta: float = Field(5.0, ge=0)
        """Weight of the divergence, lambda in the paper."""
        beta_warmup: Fraction = Field(0.0, ge=0, le=1)
        """Share of the training over which beta grows from 0 to its full size."""

    config: Config

    @property
    def own(self) -> Passes:
        """Clean and adversarial images."""
        return Passes(2, 2)

    def outer(
        self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """That sum, and the logits on the adversarial images."""
        clean, logits = model(x), model(examples)
        doubt = 1 - picked(clean.softmax(1), y)
        beta = self.config.beta * batch.growth(self.config.beta_warmup)
        return (boosted(logits, y) + beta * divergences(clean, logits) * doubt).mean(), logits
