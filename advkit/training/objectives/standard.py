"""Ordinary training."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.config import Fraction, StrictModel
from advkit.training.objective import Batch, Objective, Passes, objective


@objective("standard", summary="cross-entropy on the images as they are", source="maximum likelihood")
class Standard(Objective):
    """-log p(label), averaged over the batch."""

    class Config(StrictModel):
        """Parameters."""

        label_smoothing: Fraction = Field(0.0, ge=0, lt=1)
        """Share of the target that is spread evenly over all classes."""

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
