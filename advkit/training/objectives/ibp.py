"""Interval bound propagation (IBP): training on interval bounds."""

from __future__ import annotations

from torch import Tensor, nn

from advkit.training.certified import Bounded, Certified, CertifiedConfig
from advkit.training.objective import Batch, objective


@objective(
    "ibp",
    summary="clean cross-entropy, and that of the worst outputs within interval bounds (IBP); 3 passes",
    source="Gowal et al., On the Effectiveness of Interval Bound Propagation, 2018, eq. 12",
)
class Ibp(Certified):
    """Differences of logits are bounded through the last layer, as in section 3 there."""

    class Config(CertifiedConfig):
        """Parameters."""

    config: Config

    def certified(self, model: nn.Module, seen: Bounded, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """(N, K) by intervals."""
        return seen.worst(x, self.eps(batch), y)
