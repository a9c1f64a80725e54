"""The judge: one small digit classifier, frozen and shipped with advkit, by which generators are measured.

It was trained on the training images of MNIST by ``recipes/train/digit-judge.toml``. It is
never attacked or trained itself. Its hash is in every report, since figures that were measured
by its features compare only with figures of the same judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad, softmax

from advkit.core import levels
from advkit.core.errors import DataError
from advkit.data.data import Data
from advkit.gan.neighbours import covered, radii
from advkit.models.architectures.small_classifiers import JudgeCNN
from advkit.models.checkpoint import load_checkpoint
from advkit.models.model import Model

FILE = Path(__file__).with_name("digit-judge.safetensors")
SIZE = 28
"""Height and width of the images that it was trained on."""
INK = 20
"""Height and width of the digits in them; what is smaller than this is a digit without a margin."""
BATCH = 250
"""Images a pass."""
LEAST = 16
"""Rows from which on the libraries' kernels give an image the same bits in every batch."""
TRUSTED = 0.8
"""Share of real images that it has to read right if its answers are to count."""
DIGITS = tuple(str(digit) for digit in range(10))
STACKED = tuple(f"{mode:03d}" for mode in range(1000))
"""Names of the classes that it can read."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the brightness of a colour (ITU-R BT.601)."""


class Look(NamedTuple):
    """What the judge makes of images."""

    features: Tensor
    """(N, D) float32, with a standard deviation of about 1 over real digits."""
    probabilities: Tensor
    """(N, 10) float32."""


class Judge:
    """Digits by their images, of any size, grey or in colour.

    Args:
        model: a `JudgeCNN` of ten digits, in eval mode.
    """

    def __init__(self, model: Model) -> None:
        self._network = cast(JudgeCNN, model.network)
        self.hash = model.hash
        """Of the model: 64 hexadecimal digits."""
        self._device = next(model.parameters()).device
        spread = cast(Tensor, self._network.trunk[-1].weight)  # of each feature, over the training images
        self._unit = float(spread.square().mean().sqrt())

    @torch.no_grad()
    def look(self, images: Tensor) -> Look:
        """Features and probabilities of images (N, C, H, W), uint8 or floats in [0, 1], on the CPU.

        Raises:
            DataError: no images, or neither 1 nor 3 channels.
        """
        if images.dim() != 4 or len(images) == 0 or images.shape[1] not in (1, 3):
            raise DataError(
                f"the judge cannot look at images of shape {tuple(images.shape)}; "
                "give (N, 1 or 3, height, width), one image at least"
            )
        features, probabilities = [], []
        with _one_way():
            for part in images.split(BATCH):
                seen = self._network.features(_filled(prepared(part.to(self._device))))
                features.append(seen[: len(part)].cpu() / self._unit)
                probabilities.append(softmax(self._network.answer(seen), 1)[: len(part)].cpu())
        return Look(torch.cat(features), torch.cat(probabilities))

    def features(self, images: Tensor) -> Tensor:
        """(N, D) float32: the layer before the last, of images as `look` takes them."""
        return self.look(images).features

    def probabilities(self, images: Tensor) -> Tensor:
        """(N, 10) float32: how likely it thinks each digit."""
        return self.look(images).probabilities

    def digits(self, images: Tensor) -> Tensor:
        """(N,) int64: the predicted digit of each image."""
        return self.probabilities(images).argmax(1)

    def look_stacked(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Three digits in the channels of each image (N, 3, H, W), looked at one by one.

        Returns:
            Features (N, 3 D), and modes (N,) int64: 100 a + 10 b + c of the digits a, b and c.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise DataError(f"stacked digits have 3 channels, not shape {tuple(images.shape)}; give such")
        found = self.look(images.reshape(-1, 1, *images.shape[2:]))
        digits = found.probabilities.argmax(1).view(-1, 3)
        return found.features.view(len(images), -1), digits @ torch.tensor([100, 10, 1])

    def read(self, images: Tensor, *, stacked: bool) -> tuple[Tensor, Tensor]:
        """Features and predicted classes (N,) of images, of `look_stacked` where digits are ``stacked``."""
        if stacked:
            return self.look_stacked(images)
        found = self.look(images)
        return found.features, found.probabilities.argmax(1)

    def modes(self, images: Tensor) -> Tensor:
        """(N,) int64 in 0..999: the mode of each stacked image (N, 3, H, W)."""
        return self.look_stacked(images)[1]


def are_stacked(data: Data) -> bool:
    """Whether each image holds three digits, in its channels."""
    return data.class_names == STACKED and data.shape[0] == 3


def prepared(images: Tensor) -> Tensor:
    """(N, 1, 28, 28) floats of images (N, C, H, W), uint8 or floats in [0, 1].

    Colours become their brightness. An image smaller than 20x20 has no room for MNIST's margin: it becomes
    the 20x20 in the middle, since small digits fill their image. Any other is shrunk or enlarged as a whole.
    """
    x = levels.as_image(images) if images.dtype == torch.uint8 else images.float()
    if x.shape[1] == 3:
        x = (x * torch.tensor(GREY, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    side = INK if max(x.shape[2:]) < INK else SIZE
    if x.shape[2:] != (side, side):
        x = interpolate(x, (side, side), mode="bilinear", antialias=True)
    return pad(x, [(SIZE - side) // 2] * 4) if side < SIZE else x


def _filled(x: Tensor) -> Tensor:
    """With copies of the first row up to as many as `LEAST`."""
    missing = LEAST - len(x)
    return torch.cat([x, x[:1].expand(missing, -1, -1, -1)]) if missing > 0 else x


@contextmanager
def _one_way() -> Iterator[None]:
    """Convolutions on a GPU always the same way, and in full float32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@cache
def judge(device: str = "cpu") -> Judge:
    """The judge, on a device; always the same object."""
    model = load_checkpoint(FILE).to(device).eval()
    return Judge(model.requires_grad_(False))


def histogram(images: Tensor) -> Tensor:
    """(10,) float32: the share of each digit among images (N, C, H, W), as the judge reads them."""
    return torch.bincount(judge().digits(images), minlength=10) / len(images)


def coverage(real: Tensor, generated: Tensor, k: int = 5) -> float:
    """Share of real images that have a generated one among what is as near as their k-th real neighbour.

    1 or nearly where the generated images are as varied as the real ones, 1 / N where they are all alike
    (Naeem et al. 2020, eq. 9). Quick for some hundreds of images, for watching a training.

    Args:
        real: (M, D) features of real images, M > k, by `Judge.features`.
        generated: (N, D) features of generated ones, best as many.
        k: which neighbour.
    """
    return covered(real, radii(real, k), generated)
