"""Adversarial training with projected gradient descent."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.core.config import Fraction
from advkit.training.inner import Attacker, ChosenAttack
from advkit.training.objective import Batch, Passes, Smoothing, objective


@objective(
    "pgd",
    summary="cross-entropy on PGD examples of every batch (Madry et al.)",
    source="Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018",
)
class PgdTraining(ChosenAttack):
    """Equation 2.1: the attacker climbs the cross-entropy of the model in eval mode, the update goes down."""

    class Config(Attacker, Smoothing):
        """Parameters."""

        clean_weight: Fraction = Field(0.0, ge=0, le=1)
        """Share of the clean images' loss: 0 trains on adversarial examples only, 0.5 on both alike."""

    config: Config

    @property
    def own(self) -> Passes:
        """One each way, and another for the clean images."""
        passes = 2 if self.config.clean_weight else 1
        return Passes(passes, passes)

    def outer(
        self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropies, and the logits on the adversarial images."""
        logits, smoothing = model(examples), self.config.label_smoothing
        loss = cross_entropy(logits, y, label_smoothing=smoothing)
        share = self.config.clean_weight
        if share:
            clean = cross_entropy(model(x), y, label_smoothing=smoothing)
            loss = (1 - share) * loss + share * clean
        return loss, logits
