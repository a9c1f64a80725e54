"""AugMix: mixtures of chains of simple changes, on which the classifier has to agree with itself."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from advkit.core import levels, rng
from advkit.core.images import to_uint8
from advkit.core.warp import mapped
from advkit.training.objective import Batch, Objective, Passes, Smoothing, objective

AFFINE = 5
"""Changes that are affine maps: rotation, shears across and down, shifts across and down."""
OTHERS = 4
"""Autocontrast, equalisation, fewer bits, inversion of bright values."""


@objective(
    "augmix",
    summary="cross-entropy, and agreement on mixtures of changed images, against common corruptions",
    source="Hendrycks et al., ICLR 2020",
)
class AugMix(Objective):
    """Cross-entropy on the images, and the Jensen-Shannon divergence of the answers to them and two mixtures.

    The changes are those of the paper, which leave out what ImageNet-C measures: contrast, brightness, noise
    and blur. Rotation, shears and shifts are among them, and among the corruptions of MNIST-C.
    """

    class Config(Smoothing):
        """Parameters."""

        consistency: float = Field(12.0, ge=0)
        """Weight of the divergence, lambda in the paper."""
        chains: int = Field(3, ge=1)
        """Chains of changes in a mixture."""
        depth: int = Field(3, ge=1)
        """Changes in a chain at most; their number is drawn."""
        severity: float = Field(3.0, ge=0.1, le=10)
        """Greatest strength of a change, of 10."""

    config: Config
    needs_threat = False

    @property
    def passes(self) -> Passes:
        """The images and two mixtures, each way."""
        return Passes(3, 3)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and the logits on the images."""
        key = rng.keys(batch.seed, "augmix", batch.ids, batch.step)
        mixtures = [self.mixture(x, rng.step(key, number)) for number in (1, 2)]
        clean, *others = model(torch.cat([x, *mixtures])).chunk(3)
        loss = cross_entropy(clean, y, label_smoothing=self.config.label_smoothing)
        return loss + self.config.consistency * divergence(torch.stack([clean, *others])), clean

    def mixture(self, x: Tensor, key: Tensor) -> Tensor:
        """(N, C, H, W) the images mixed with a mixture of their changed forms; by (N,) keys."""
        config, count = self.config, len(x)
        weights = -torch.log1p(-rng.uniform(rng.step(key, 0), (config.chains,)))  # Dirichlet, all ones
        weights = weights / weights.sum(1, keepdim=True)
        share = rng.uniform(rng.step(key, 1), (1, 1, 1))  # Beta(1, 1)
        mixed = torch.zeros_like(x)
        for chain in range(config.chains):
            own = rng.step(key, 2 + chain)
            depth = rng.integers(rng.step(own, 0), (1,), config.depth)[:, 0] + 1
            changed = x
            for link in range(config.depth):
                drawn = rng.step(own, 1 + link)
                kind = rng.integers(rng.step(drawn, 0), (1,), AFFINE + OTHERS)[:, 0]
                strength = 0.1 + (config.severity - 0.1) * rng.uniform(rng.step(drawn, 1), (1,))[:, 0]
                kind = torch.where(link < depth, kind, -1)
                changed = change(changed, kind, strength / 10, rng.signs(rng.step(drawn, 2), (1,))[:, 0])
            mixed = mixed + weights[:, chain].view(count, 1, 1, 1) * changed
        return (1 - share) * x + share * mixed


def divergence(logits: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of the answers, in nats, averaged over the images.

    Args:
        logits: (M, N, K) of M forms of N images.
    """
    p = softmax(logits, 2)
    mean = p.mean(0).clamp(min=1e-7).log()
    return (p * (p.clamp(min=1e-7).log() - mean)).sum(2).mean()


def change(x: Tensor, kind: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Each image changed in its own way, to its own strength.

    Args:
        x: (N, C, H, W) in [0, 1].
        kind: (N,) 0 to 8: rotation, shear across, shear down, shift across, shift down, autocontrast,
            equalisation, fewer bits, inversion; others leave the image as it is.
        strength: (N,) in [0, 1]: of 30 degrees, a shear of 0.3, a third of the image, 4 bits less than 4, and
            of all values.
        sign: (N,) the direction of the affine ones.
    """
    height, width = x.shape[2:]
    zero = torch.zeros_like(strength)

    def of(number: int, most: float, whole: bool = False) -> Tensor:
        size = (strength * most).floor() if whole else strength * most
        return torch.where(kind == number, sign * size, zero)

    angle = torch.deg2rad(of(0, 30, True))
    map_to = (angle.cos(), of(1, 0.3) - angle.sin(), of(2, 0.3) + angle.sin(), angle.cos())
    shifts = of(3, width / 3, True), of(4, height / 3, True)
    affine = mapped(x, *map_to, *shifts)

    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    stretched = torch.where(high > low, (x - low) / (high - low).clamp(min=1e-9), x)
    level = to_uint8(x).float()
    step = 2 ** (4 + (strength * 4).floor()).view(-1, 1, 1, 1)
    coarse = (level / step).floor() * step / 255
    limit = (256 - (strength * 256).floor()).view(-1, 1, 1, 1)
    forms = [affine, stretched, equalised(x), coarse, torch.where(level < limit, x, 1 - x)]
    which = (kind - (AFFINE - 1)).clamp(min=0)
    chosen = torch.stack(forms)[which, torch.arange(len(x), device=x.device)]
    return torch.where((kind >= 0).view(-1, 1, 1, 1), chosen, x)


def equalised(x: Tensor) -> Tensor:
    """(N, C, H, W) of 8-bit levels, which occur about equally often in each channel, as Pillow does it."""
    level = to_uint8(x).flatten(2).long()
    counts = torch.zeros(*x.shape[:2], 256, dtype=torch.int64, device=x.device)
    counts.scatter_add_(2, level, torch.ones_like(level))
    last = level.amax(2, keepdim=True)
    step = (level.shape[2] - counts.gather(2, last)) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=x.device))
    return levels.as_image(table.gather(2, level)).view(x.shape)
