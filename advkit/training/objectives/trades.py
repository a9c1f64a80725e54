"""TRADES: accuracy on clean images, and outputs that change little around them."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from advkit.attacks.engine.oracle import query
from advkit.attacks.loss import AttackLoss
from advkit.core.config import Fraction
from advkit.models.model import evaluation_mode
from advkit.training.inner import Attacker, ChosenAttack
from advkit.training.objective import Batch, Passes, Smoothing, objective


def divergences(meant: Tensor, said: Tensor) -> Tensor:
    """(N,) Kullback-Leibler divergences KL(p || q) of what logits ``said`` (N, K) tell, q, from what logits
    ``meant`` tell, p; in nats, 0 where both tell the same."""
    p, q = log_softmax(meant, 1), log_softmax(said, 1)
    return (p.exp() * (p - q)).sum(1)


@objective(
    "trades",
    summary="clean cross-entropy plus beta times the divergence of outputs inside the ball (TRADES)",
    source="Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, ICML 2019",
)
class Trades(ChosenAttack):
    """Algorithm 1: CE(f(x), y) + beta * max KL(f(x) || f(x')), averaged over the batch.

    The attacker climbs the same divergence, from the model's answer on the clean image in eval mode. It
    starts from a random point of the ball, where the paper starts from the image with a little Gaussian noise
    on it. Gradients flow through both answers, as in the authors' code.
    """

    class Config(Attacker, Smoothing):
        """Parameters."""

        steps: int = Field(10, ge=1)
        """Gradient steps of the attacker."""
        beta: float = Field(6.0, ge=0)
        """Weight of the divergence: the authors use 6 on CIFAR-10 and 1 on MNIST."""
        beta_warmup: Fraction = Field(0.0, ge=0, le=1)
        """Share of the training over which beta grows from 0 to its full size."""

    config: Config
    ahead = Passes(1, 0)

    @property
    def own(self) -> Passes:
        """Clean and adversarial images."""
        return Passes(2, 2)

    def climb(self, model: nn.Module, x: Tensor) -> AttackLoss:
        """The divergence from the model's present answers."""
        with torch.no_grad(), evaluation_mode(model):
            meant = query(model, x).float()

        def away(logits: Tensor, label: Tensor, aim: Tensor | None = None) -> Tensor:
            return divergences(meant, logits)

        return away

    def outer(
        self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """That sum, and the logits on the adversarial images."""
        clean, logits = model(x), model(examples)
        beta = self.config.beta * batch.growth(self.config.beta_warmup)
        loss = cross_entropy(clean, y, label_smoothing=self.config.label_smoothing)
        return loss + beta * divergences(clean, logits).mean(), logits
