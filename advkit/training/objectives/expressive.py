"""Objectives between adversarial and certified training: what PGD finds and what intervals bound, mixed.

With the weight 0 each is adversarial training, with 1 it is `ibp`. Small weights suffice to make a network
provable by complete verification, and cost less accuracy than bounds alone.
"""

from __future__ import annotations

from abc import abstractmethod

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.core.config import Fraction
from advkit.training.objective import Batch, Passes, objective
from advkit.training.objectives.certified import Bounded, Searched, SearchedConfig, pgd

SOURCE = "De Palma et al., Expressive Losses for Verified Robustness via Convex Combinations, ICLR 2024"


class ExpressiveConfig(SearchedConfig):
    """Parameters of all of them."""

    bound_weight: Fraction = Field(0.1, gt=0, lt=1)
    """Weight of the interval bounds (alpha); the larger it is, the more is proved, and the less is right."""


class Expressive(Searched):
    """PGD searches the whole ball. Its examples are judged with the batch norms of the clean pass, as the
    bounds are."""

    Config = ExpressiveConfig
    config: ExpressiveConfig
    bounding = Passes(3, 3)
    """A box has a middle and a radius; and one of what PGD found."""
    judges = (
        "advkit certify --model {} --method complete",
        "advkit attack --model {} --certify complete",
    )

    def certified(self, model: nn.Module, seen: Bounded, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N, K) by intervals."""
        return seen.worst(x, self.eps(batch), y)

    def robust_loss(
        self, model: nn.Module, seen: Bounded, worst: Tensor, x: Tensor, y: Tensor, batch: Batch
    ) -> Tensor:
        """The mixture, on average."""
        found = pgd(model, x, y, self.eps(batch), self.config.steps, batch)
        with seen.arithmetic(x):
            logits = seen.graph.forward(found)
        return self.mixed(logits.float(), worst, y).mean()

    @abstractmethod
    def mixed(self, found: Tensor, worst: Tensor, y: Tensor) -> Tensor:
        """(N,) losses, of (N, K) logits of PGD's examples and the worst ones."""


@objective(
    "mtl-ibp",
    summary="weighted sum of the losses of PGD and of interval bounds (MTL-IBP)",
    source=f"{SOURCE}, MTL-IBP",
)
class MtlIbp(Expressive):
    """(1 - alpha) CE(PGD) + alpha CE(worst)."""

    def mixed(self, found: Tensor, worst: Tensor, y: Tensor) -> Tensor:
        """(N,) sums."""
        weight = self.config.bound_weight
        near, far = (cross_entropy(logits, y, reduction="none") for logits in (found, worst))
        return (1 - weight) * near + weight * far


@objective(
    "cc-ibp",
    summary="loss of a weighted sum of the logits of PGD and of interval bounds (CC-IBP)",
    source=f"{SOURCE}, CC-IBP",
)
class CcIbp(Expressive):
    """CE((1 - alpha) PGD's + alpha worst), both as leads over the true class."""

    def mixed(self, found: Tensor, worst: Tensor, y: Tensor) -> Tensor:
        """(N,) losses of the sum."""
        weight = self.config.bound_weight
        leads = found - found.gather(1, y[:, None])
        return cross_entropy((1 - weight) * leads + weight * worst, y, reduction="none")


@objective(
    "exp-ibp",
    summary="weighted product of the losses of PGD and of interval bounds (Exp-IBP)",
    source=f"{SOURCE}, Exp-IBP",
)
class ExpIbp(Expressive):
    """CE(PGD) ** (1 - alpha) CE(worst) ** alpha."""

    def mixed(self, found: Tensor, worst: Tensor, y: Tensor) -> Tensor:
        """(N,) products. The powers' slopes are unbounded at 0; losses below 1e-6 have none."""
        weight = self.config.bound_weight
        near, far = (cross_entropy(logits, y, reduction="none").clamp(min=1e-6) for logits in (found, worst))
        return near ** (1 - weight) * far**weight
