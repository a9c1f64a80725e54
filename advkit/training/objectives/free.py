"""Free adversarial training: one backward pass serves the weights and the attacker."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.attacks.parts.ascent import steepest_
from advkit.core.config import Fraction, StrictModel
from advkit.core.threat import Threat
from advkit.training.objective import Batch, Objective, Passes, Smoothing, objective

SHARE = 0.01
"""Of the values that a step moves in l1, as in pgd."""


@objective(
    "free",
    summary="cross-entropy on examples that are updated every step, at the cost of ordinary training",
    source="Shafahi et al., Adversarial Training for Free!, NeurIPS 2019",
)
class Free(Objective):
    """Algorithm 1: each batch is seen ``replays`` times in a row; every backward pass moves the weights down
    and the perturbation up, by a step of eps. The perturbation of a place in the batch is kept from update to
    update, from one batch to the next too, and begins at 0.

    ``epochs`` count updates, so the images are seen epochs / replays times, and the whole costs what ordinary
    training costs.
    """

    class Config(Smoothing):
        """Parameters."""

        replays: int = Field(8, ge=1)
        """Updates in a row on the same batch, m in the paper."""
        eps_warmup: Fraction = Field(0.1, ge=0, le=1)
        """Share of the training over which eps grows from 0 to its full size."""

    config: Config

    def __init__(self, config: StrictModel) -> None:
        super().__init__(config)
        self.replays = self.config.replays

    @property
    def passes(self) -> Passes:
        """One each way."""
        return Passes(1, 1)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and the logits on the images as they are perturbed now."""
        logits = model(self._perturbed(x, batch))
        return cross_entropy(logits, y, label_smoothing=self.config.label_smoothing), logits

    def gradients(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Also moves the perturbation, by the gradient that the same backward pass leaves at the images."""
        perturbed = self._perturbed(x, batch).requires_grad_()
        logits = model(perturbed)
        loss = cross_entropy(logits, y, label_smoothing=self.config.label_smoothing)
        loss.backward()
        assert perturbed.grad is not None
        threat, now = self._now(batch), perturbed.detach()
        step = steepest_(perturbed.grad, now, threat, SHARE)
        batch.memory[self._name(batch)] = threat.project_(now.add(step, alpha=threat.eps), x) - x
        return loss.detach(), logits.detach()

    def _perturbed(self, x: Tensor, batch: Batch) -> Tensor:
        """(N, C, H, W) inside the threat model as large as it is now."""
        kept = batch.memory.get(self._name(batch))
        return x.clone() if kept is None else self._now(batch).project_(x + kept, x)

    def _now(self, batch: Batch) -> Threat:
        assert batch.threat is not None  # the loop has made sure
        return Threat(batch.threat.norm, batch.threat.eps * batch.growth(self.config.eps_warmup))

    @staticmethod
    def _name(batch: Batch) -> str:
        return f"perturbation in {batch.threat}"
