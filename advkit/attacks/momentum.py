"""Sign steps along a running sum of gradients: the transfer attacks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.record import column
from advkit.attacks.loss import ATTACK_LOSSES
from advkit.core import rng
from advkit.core.config import Fraction, StrictModel
from advkit.core.threat import Threat


@dataclass
class MomentumState(State):
    """The point and velocity of each row."""

    velocity: Tensor
    """(R, C, H, W) running sum of gradients of unit size."""


class MomentumConfig(StrictModel):
    """Parameters of all of them."""

    steps: int = Field(10, ge=1)
    """Gradient steps."""
    step_size: Fraction | None = Field(None, gt=0)
    """In units of pixels; by default eps / steps, so that the last step can just reach the edge."""
    decay: float = Field(1.0, ge=0)
    """Share of the sum that is kept from step to step."""
    loss: str = "ce"
    """Loss to maximise (see `advkit ls attack-losses`)."""


class Momentum(Attack[MomentumState]):
    """Dong et al., CVPR 2018, algorithm 1; others differ in where and how the gradient is taken."""

    Config = MomentumConfig
    config: MomentumConfig
    norms = ("linf", "l2")

    def __init__(self, config: MomentumConfig, threat: Threat) -> None:
        super().__init__(config, threat)
        self._loss = ATTACK_LOSSES.get(config.loss)
        self._step_size = config.step_size or threat.eps / config.steps

    def start(self, rows: Rows) -> MomentumState:
        """The originals, with zero velocity."""
        still = torch.zeros_like(rows.x0)
        return MomentumState(rows, rows.x0.clone(), rows.label.new_zeros(len(rows)), still)

    def step(self, state: MomentumState, oracle: Oracle) -> MomentumState:
        """One step, in place."""
        unit = self._unit_(self._gradient(state, oracle))
        velocity = state.velocity.mul_(self.config.decay).add_(unit)
        x = state.x.add_(self.threat.ascent(velocity), alpha=self._step_size)
        return MomentumState(state.rows, self.threat.project_(x, state.rows.x0), state.iteration, velocity)

    def _gradient(self, state: MomentumState, oracle: Oracle) -> Tensor:
        """(R, C, H, W) the gradient to add, of any size; at ``x``, unless an attack overrides it."""
        return oracle.loss_and_grad(state.x, state.rows, self._loss)[1]

    def _unit_(self, gradient: Tensor) -> Tensor:
        """Normalised: in linf to mean size 1, as in the authors' code; in l2 to length 1."""
        if self.threat.norm == "l2":
            return self.threat.ascent_(gradient)
        size = gradient.abs().flatten(1).mean(1).clamp_(min=1e-12)
        return gradient.div_(column(size, gradient))


@attack(
    "mi-fgsm",
    summary="sign steps along a running sum of gradients",
    source="Dong et al. 2018",
    aliases=("momentum-iterative",),
)
class MIFGSM(Momentum):
    """The sum keeps directions on which several gradients agree, and other models may agree too."""


@attack("ni-fgsm", summary="momentum whose gradients are taken a step ahead", source="Lin et al. 2020")
class NIFGSM(Momentum):
    """Lin et al., ICLR 2020, section 3.2. The points ahead count if they are inside the threat model."""

    def _gradient(self, state: MomentumState, oracle: Oracle) -> Tensor:
        ahead = state.x.add(state.velocity, alpha=self._step_size * self.config.decay)
        return oracle.loss_and_grad(ahead, state.rows, self._loss)[1]


DEVIATIONS = 3.0
"""Standard deviations of the Gaussian from its centre to its edge."""


@attack(
    "ti-fgsm",
    summary="momentum on blurred gradients, for models with other attention regions",
    source="Dong et al. 2019",
)
class TIFGSM(Momentum):
    """Dong et al., CVPR 2019, section 3.3: blurring a gradient approximates the average over translations
    of the image."""

    class Config(MomentumConfig):
        kernel: int = Field(15, ge=1)
        """Pixels across the Gaussian; at most half the side of the image."""

    config: Config

    def _gradient(self, state: MomentumState, oracle: Oracle) -> Tensor:
        gradient = super()._gradient(state, oracle)
        height, width = (blur(side, self.config.kernel, gradient.device) for side in gradient.shape[2:])
        return height @ gradient @ width


def blur(side: int, kernel: int, device: torch.device | str = "cpu") -> Tensor:
    """(side, side) symmetric matrix that blurs a row of pixels by a Gaussian; zero beyond the edge."""
    reach = max(min(kernel, side // 2) - 1, 0) // 2
    place = torch.arange(side, device=device)
    apart = (place[:, None] - place).abs()
    weight = torch.exp(-0.5 * (DEVIATIONS / max(reach, 1) * apart) ** 2) * (apart <= reach)
    return weight / weight[side // 2].sum()


@attack(
    "di-fgsm",
    summary="momentum on gradients through random shrinking and padding",
    source="Xie et al. 2019",
)
class DIFGSM(Momentum):
    """Xie et al., CVPR 2019, section 3.3, with momentum; the padded image has the size of the original.

    The model does not evaluate the points themselves, so only the last one counts.
    """

    class Config(MomentumConfig):
        probability: float = Field(0.5, ge=0, le=1)
        """Probability of shrinking an image before a gradient is taken."""
        smallest: float = Field(0.9, gt=0, le=1)
        """Least side of a shrunk image, as a share of the original's."""
        restarts: int = Field(1, ge=1)
        """Random sequences per image; later ones only where the earlier failed."""

    config: Config

    def _gradient(self, state: MomentumState, oracle: Oracle) -> Tensor:
        rows, config = state.rows, self.config
        draws = rng.uniform(rng.step(rows.key, state.iteration), (4,))
        scale = config.smallest + (1 - config.smallest) * draws[:, 1]
        scale = torch.where(draws[:, 0] < config.probability, scale, 1.0)
        height, width = rows.x0.shape[2:]
        down = shrinking(height, scale, draws[:, 2])[:, None]
        across = shrinking(width, scale, draws[:, 3])[:, None].mT
        return oracle.loss_and_grad(state.x, rows, self._loss, through=lambda x: down @ x @ across)[1]


def shrinking(side: int, scale: Tensor, place: Tensor) -> Tensor:
    """(R, side, side) matrices that shrink a row of pixels, with linear interpolation, and pad it with zeros.

    Args:
        side: pixels.
        scale: (R,) shares of them that are left, rounded to whole pixels.
        place: (R,) in [0, 1): position of the shrunk row.
    """
    size = (scale * side).round().clamp(1, side)
    offset = (place * (side - size + 1)).floor()
    pixel = torch.arange(side, device=scale.device)
    target = pixel - offset[:, None]  # the position of a pixel in the shrunk row
    source = ((target + 0.5) * (side / size)[:, None] - 0.5).clamp(0, side - 1)
    weight = (1 - (source[:, :, None] - pixel).abs()).clamp(min=0)
    return weight * ((target >= 0) & (target < size[:, None]))[:, :, None]
