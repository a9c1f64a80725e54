"""Query access to a classifier, with a counter and a limit; queries and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from advkit.attacks.engine.oracle import query
from advkit.attacks.perturb import device_of
from advkit.core import files, images, levels, rng
from advkit.core.errors import ConfigError
from advkit.data.data import Data
from advkit.models.model import evaluation_mode

Answers = Literal["labels", "probabilities"]
BATCH = 500
"""Images of a pass."""


class BlackBox:
    """Answers at most ``limit`` queries, each an image of 8-bit levels.

    Args:
        model: images in [0, 1] to logits.
        answers: the predicted class, or the probabilities of all classes.
        limit: of queries.
        asked: queries made by an earlier process.
    """

    def __init__(self, model: nn.Module, answers: Answers, limit: int, asked: int = 0) -> None:
        self._model, self._answers = model, answers
        self.limit, self.asked = limit, asked

    @property
    def left(self) -> int:
        """Remaining queries."""
        return self.limit - self.asked

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        """(N, K) float32 probabilities, on the CPU: one-hot with labels only.

        Args:
            images: (N, C, H, W) uint8.

        Raises:
            ConfigError: more queries than remain; none is answered.
        """
        if len(images) > self.left:
            raise ConfigError(
                f"{len(images)} queries exceed the {self.left} that remain of {self.limit}; raise the limit "
                "with --queries"
            )
        self.asked += len(images)
        device, answers = device_of(self._model), []
        with evaluation_mode(self._model):
            for part in images.split(BATCH):
                logits = query(self._model, levels.as_image(part.to(device))).float()
                if self._answers == "labels":
                    answers.append(one_hot(logits.argmax(1), logits.shape[1]).float().cpu())
                else:
                    answers.append(logits.softmax(1).cpu())
        return torch.cat(answers)


ORIGINS = ("real", "generated", "augmented", "adversarial")
"""Origins of the images."""


@dataclass(frozen=True)
class Queries:
    """Images and the answers to them."""

    images: Tensor
    """(Q, C, H, W) uint8."""
    answers: Tensor
    """(Q, K) float32 probabilities."""
    origin: Tensor
    """(Q,) int64 index into `ORIGINS`."""

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def collect(cls, box: BlackBox, parts: Sequence[tuple[Tensor, str]]) -> Queries:
        """Queries images (N, C, H, W) uint8, given with their origins."""
        asked = torch.cat([each for each, _ in parts])
        origin = torch.cat([torch.full((len(each),), ORIGINS.index(of)) for each, of in parts])
        return cls(asked, box.query(asked), origin)

    def first(self, n: int) -> Queries:
        """The first ``n``, or all of them."""
        return Queries(self.images[:n], self.answers[:n], self.origin[:n])

    def joined(self, more: Queries) -> Queries:
        """These, then ``more``."""
        pairs = ((self.images, more.images), (self.answers, more.answers), (self.origin, more.origin))
        return Queries(*(torch.cat(pair) for pair in pairs))

    def counts(self) -> dict[str, int]:
        """Number of images by origin."""
        return {of: int((self.origin == place).sum()) for place, of in enumerate(ORIGINS)}

    def data(self, class_names: tuple[str, ...]) -> Data:
        """As training images; labels are the most probable classes."""
        labels = self.answers.argmax(1)
        return Data("queries", "train", self.images, labels, class_names, torch.arange(len(self)))

    def save(self, path: Path) -> None:
        """Writes all of it as .npz."""
        arrays = {"images": self.images, "answers": self.answers, "origin": self.origin}
        files.write_arrays(path, **{name: array.numpy() for name, array in arrays.items()})

    @classmethod
    def load(cls, path: Path) -> Queries:
        """Reads what `save` wrote."""
        stored = files.Arrays(path)
        return cls(*(torch.from_numpy(stored[name]) for name in ("images", "answers", "origin")))


def real_images(data: Data, n: int, seed: int) -> Tensor:
    """(up to n, C, H, W) uint8 images in a random order."""
    index = rng.permutation(seed, "queries", len(data))[:n]
    parts = [images.to_uint8(data.batch(part)[0]) for part in index.split(BATCH)]
    return torch.cat(parts) if parts else torch.empty(0, *data.shape, dtype=torch.uint8)


def augmented(copy: nn.Module, queries: Queries, n: int, step: float) -> Tensor:
    """(up to n, C, H, W) uint8: Jacobian-based augmentation: the images moved along the sign of the gradient
    of the copy's logit of the answered class (Papernot et al. 2017, section 4.1).

    Args:
        copy: images in [0, 1] to logits.
        queries: of the rounds so far; the latest come first.
        n: largest number.
        step: size, for pixels in [0, 1].
    """
    device, found = device_of(copy), []
    chosen = torch.arange(len(queries)).flip(0)[:n]
    with evaluation_mode(copy):
        for part in chosen.split(BATCH):
            x = levels.as_image(queries.images[part].to(device)).requires_grad_(True)
            answered = queries.answers[part].argmax(1).to(device)
            with torch.enable_grad():
                logit = query(copy, x).gather(1, answered[:, None]).sum()
            (gradient,) = torch.autograd.grad(logit, x)
            found.append(images.to_uint8(x.detach() + step * gradient.sign()).cpu())
    return torch.cat(found) if found else queries.images[:0]
