"""Differentiable augmentation: what the discriminator sees of real and of generated images alike.

A discriminator that knows few images by heart says nothing useful about others; one that sees every image
differently each time cannot learn them by heart (Zhao et al. 2020, "Differentiable Augmentation for
Data-Efficient GAN Training"). Where how likely a change is follows from how sure the discriminator is of the
training images, it is adaptive (Karras et al. 2020, "Training Generative Adversarial Networks with Limited
Data").

Random numbers come from PyTorch's global generator, inside the `advkit.core.rng.scope` of the training step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from advkit.core import distributed
from advkit.gan.settings import Augmentation

SHIFT = 1 / 8
"""Furthest shift, as a share of the image's side."""
HOLE = 1 / 2
"""Side of the square that is cut out, as a share of the image's."""
ADAPT_EVERY = 4
"""Steps between changes of the probability."""
SPEED = 500_000
"""Images within which the probability can go from 0 to 1."""


class Augment:
    """Random changes of images (N, C, H, W).

    Args:
        changes: which; they are made in the order given.
        probability: of each change for each image.
        target: mean sign of the discriminator's verdicts on real images that the probability is steered to;
            None leaves it as it is, and otherwise it begins at 0.
        batch_size: real images a step, for the speed of adaption.
    """

    def __init__(
        self,
        changes: Sequence[Augmentation],
        probability: float,
        target: float | None,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.changes, self.target = [CHANGES[name] for name in changes], target
        start = probability if target is None else 0.0
        self.probability = torch.tensor(start, device=device)
        self._signs = torch.zeros((), device=device)
        self._pace = ADAPT_EVERY * batch_size / SPEED

    def __call__(self, images: Tensor) -> Tensor:
        """The images, each changed or not."""
        for change in self.changes:
            chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < self.probability
            images = torch.where(chosen, change(images), images)
        return images

    def adapt(self, verdicts: Tensor, step: int) -> None:
        """Notes the discriminator's verdicts on the real images of step ``step`` (from 0); every
        `ADAPT_EVERY` steps the probability moves a little, without waiting for the device."""
        if self.target is None:
            return
        self._signs += verdicts.detach().float().sign().mean() / ADAPT_EVERY
        if (step + 1) % ADAPT_EVERY == 0:
            distributed.average([self._signs])
            self.probability += self._pace * (self._signs - self.target).sign()
            self.probability.clamp_(0, 1)
            self._signs.zero_()

    def state(self) -> dict[str, Tensor]:
        """What a resume needs."""
        return {"probability": self.probability, "signs": self._signs}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Back to what `state` gave."""
        self.probability.copy_(state["probability"])
        self._signs.copy_(state["signs"])


def _each(images: Tensor) -> Tensor:
    """(N, 1, 1, 1) numbers in [0, 1), one for each image."""
    return torch.rand(len(images), 1, 1, 1, device=images.device)


def brightness(images: Tensor) -> Tensor:
    """Lighter or darker by up to one half."""
    return images + (_each(images) - 0.5)


def contrast(images: Tensor) -> Tensor:
    """Half to one and a half times as far from the image's mean."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (_each(images) + 0.5) + mean


def saturation(images: Tensor) -> Tensor:
    """None to twice as much colour; grey images stay as they are."""
    grey = images.mean(1, keepdim=True)
    return (images - grey) * (2 * _each(images)) + grey


def shift(images: Tensor) -> Tensor:
    """Moved by up to an eighth of the side; black comes in at the edge."""
    n, _, height, width = images.shape
    far = [max(1, round(side * SHIFT)) for side in (height, width)]
    padded = torch.nn.functional.pad(images, (far[1], far[1], far[0], far[0]))
    rows, columns = (
        torch.randint(2 * by + 1, (n, 1), device=images.device) + torch.arange(side, device=images.device)
        for by, side in zip(far, (height, width), strict=True)
    )
    image = torch.arange(n, device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def cutout(images: Tensor) -> Tensor:
    """Cutout: a black square of half the side, at a random position."""
    height, width = images.shape[2:]
    inside = torch.ones(len(images), 1, 1, 1, dtype=torch.bool, device=images.device)
    for side, shape in ((height, (1, 1, height, 1)), (width, (1, 1, 1, width))):
        middle = (_each(images) * side).floor()
        place = torch.arange(side, device=images.device).view(shape)
        inside = inside & ((place - middle).abs() < side * HOLE / 2)
    return images.masked_fill(inside, 0.0)


CHANGES: dict[Augmentation, Callable[[Tensor], Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "shift": shift,
    "cutout": cutout,
}
