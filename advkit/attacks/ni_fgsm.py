"""The Nesterov iterative method."""

from __future__ import annotations

from torch import Tensor

from advkit.attacks.attack import attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.parts.momentum import Momentum, MomentumConfig, MomentumState


@attack("ni-fgsm", summary="momentum whose gradients are taken a step ahead", source="Lin et al. 2020")
class NIFGSM(Momentum):
    """Lin et al., ICLR 2020, section 3.2. The points ahead count if they are inside the threat model."""

    class Config(MomentumConfig):
        """Parameters."""

    def _gradient(self, state: MomentumState, oracle: Oracle) -> Tensor:
        ahead = state.x.add(state.velocity, alpha=self._step_size * self.config.decay)
        return oracle.loss_and_grad(ahead, state.rows, self._loss)[1]
