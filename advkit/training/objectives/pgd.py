"""Adversarial training with projected gradient descent."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.attacks.perturb import fixed
from advkit.config import Fraction, StrictModel
from advkit.threat import Threat
from advkit.training.objective import Batch, Objective, Passes, objective


@objective(
    "pgd",
    summary="cross-entropy on PGD examples, made anew for every batch",
    source="Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018",
)
class PgdTraining(Objective):
    """The inner attacker climbs the cross-entropy of the model in eval mode, the update descends it."""

    class Config(StrictModel):
        """Parameters."""

        steps: int = Field(7, ge=1)
        """Gradient steps of the attacker."""
        step_size: Fraction | None = Field(None, gt=0)
        """In units of pixels; by default 2.5 * eps / steps."""
        clean_weight: Fraction = Field(0.0, ge=0, le=1)
        """Share of the clean images' loss: 0 trains on adversarial examples only, 0.5 on both alike."""
        eps_warmup: Fraction = Field(0.1, ge=0, le=1)
        """Share of the training over which eps (and step_size) grows from 0 to its full size; without it,
        training at a large eps begins on a long plateau."""

    config: Config

    @property
    def passes(self) -> Passes:
        """The attacker's steps, and the update's own passes."""
        own = self.config.steps + (2 if self.config.clean_weight else 1)
        return Passes(own, own)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropies, and the logits on the adversarial images."""
        adversarial = self._attack(model, x, y, batch)
        logits = model(adversarial)
        loss = cross_entropy(logits, y)
        share = self.config.clean_weight
        if share:
            loss = (1 - share) * loss + share * cross_entropy(model(x), y)
        return loss, logits

    def _attack(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        assert batch.threat is not None
        config = self.config
        done = (batch.step + 1) / batch.steps
        growth = min(1.0, done / config.eps_warmup) if config.eps_warmup else 1.0
        size = config.step_size and config.step_size * growth
        return fixed(
            model,
            x,
            y,
            threat=Threat(batch.threat.norm, batch.threat.eps * growth),
            attack="pgd",
            parameters={"steps": config.steps, "step_size": size},
            ids=batch.ids,
            seed=batch.seed,
            step=batch.step,
        )
