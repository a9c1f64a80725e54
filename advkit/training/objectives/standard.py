"""Ordinary training."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.training.objective import Batch, Objective, Passes, Smoothing, objective


@objective("standard", summary="cross-entropy on clean images", source="maximum likelihood")
class Standard(Objective):
    """-log p(label), averaged over the batch."""

    class Config(Smoothing):
        """Parameters."""

    config: Config
    needs_threat = False

    @property
    def passes(self) -> Passes:
        """One each way."""
        return Passes(1, 1)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and the logits on the clean images."""
        logits = model(x)
        return cross_entropy(logits, y, label_smoothing=self.config.label_smoothing), logits
