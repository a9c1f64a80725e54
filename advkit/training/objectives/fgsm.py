"""Fast adversarial training: one gradient step from a random start."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.training.inner import InnerAttack, Inside
from advkit.training.objective import Batch, Passes, Smoothing, objective


@objective(
    "fgsm",
    summary="cross-entropy on examples of one gradient step from a random start",
    source="Wong, Rice and Kolter, Fast is better than free, ICLR 2020",
    aliases=("fast-at",),
)
class FgsmTraining(InnerAttack):
    """Algorithm 3: uniform in the ball, then one step of 1.25 eps, projected. It costs two passes each way.

    The model can become robust to this one step and nothing else (catastrophic overfitting), suddenly and
    after many good updates. The loop says so when it happens; a longer step, a larger eps and a longer
    training make it likelier.
    """

    class Config(Inside, Smoothing):
        """Parameters."""

        step: float = Field(1.25, gt=0)
        """Length of the step, in units of eps: 1 is safer, 2 leads to catastrophic overfitting."""

    config: Config

    @property
    def attacker(self) -> tuple[str, dict[str, Any]]:
        """The one step."""
        return "r-fgsm", {"step": self.config.step}

    @property
    def own(self) -> Passes:
        """One each way."""
        return Passes(1, 1)

    def outer(
        self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and the logits on the adversarial images."""
        logits = model(examples)
        return cross_entropy(logits, y, label_smoothing=self.config.label_smoothing), logits
