"""The data type: images and labels of one split, held in memory as 8-bit levels where they fit."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from advkit.core import levels, rng
from advkit.core.errors import ConfigError, DataError
from advkit.core.threat import Threat
from advkit.data.image_files import ImageFiles
from advkit.models.card import DataFacts, Shape

_PIECE = 2**26
"""Pixels that are decoded at a time for the fingerprint."""


@dataclass(frozen=True)
class Data:
    """Images (N, C, H, W), uint8 or float in [0, 1], and labels (N,) int64, on the CPU.

    ``images`` is a tensor, or `ImageFiles` for a folder too large for memory: both have a shape and are
    indexed by rows, and ``batch`` serves either.

    ``ids`` are the positions in the whole split; random numbers and verdicts go by them, so a subset
    gets the same numbers as the whole.
    """

    name: str
    split: str
    images: Tensor | ImageFiles
    labels: Tensor
    class_names: tuple[str, ...]
    ids: Tensor
    threat: Threat | None = None
    """The default threat model, if there is one."""
    classes_known: bool = True
    """False when ``class_names`` only counts the labels that occur; there may be more classes."""

    def __post_init__(self) -> None:
        where = f"data {self.name!r} ({self.split})"
        if len(self.images) == 0:
            raise DataError(f"{where} has no images; give a set with at least one")
        if len(self.images) != len(self.labels):
            raise DataError(
                f"{where} has {len(self.images)} images but {len(self.labels)} labels; give one label each"
            )
        low, high = (int(bound) for bound in self.labels.aminmax())
        if low < 0 or high >= self.classes:
            raise DataError(
                f"{where} has labels from {low} to {high} but {self.classes} classes; "
                f"number the labels from 0 to {self.classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"<Data {self.name} ({self.split}): {len(self):,} images of {size}, {self.classes} classes>"

    @property
    def shape(self) -> Shape:
        """(channels, height, width)"""
        channels, height, width = self.images.shape[1:]
        return (channels, height, width)

    @property
    def classes(self) -> int:
        """How many classes there are, whether or not all of them occur here."""
        return len(self.class_names)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Images as float32 in [0, 1] and their labels, on ``device``; ``index`` are rows of this object."""
        images = self.images[index].to(device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = levels.as_image(images)
        return images, self.labels[index].to(device, non_blocking=True)

    def refuse_fractions(self) -> None:
        """Refuses values between 8-bit levels: 8-bit results need 8-bit originals.

        Raises:
            DataError: an image has values between the 8-bit levels.
        """
        if self.images.dtype == torch.uint8 or levels.are_levels(self.images[:]):
            return
        raise DataError(
            f"data {self.name!r} ({self.split}) has values that are no multiples of 1/255, so results of 8 "
            "bits would change more than the attack does; round the images first, or leave --eight-bit out"
        )

    def take(self, index: Tensor) -> Data:
        """The rows ``index`` as data of their own, with their ids; files stay undecoded."""
        images = self.images.take(index) if isinstance(self.images, ImageFiles) else self.images[index]
        return replace(self, images=images, labels=self.labels[index], ids=self.ids[index])

    def limit(self, n: int | None) -> Data:
        """The first ``n`` rows, or all of them.

        Raises:
            ConfigError: ``n`` is not positive.
        """
        if n is not None and n < 1:
            raise ConfigError(f"data {self.name!r} cannot be limited to {n} images; ask for at least 1")
        return self if n is None or n >= len(self) else self.take(torch.arange(n))

    def balanced(self, n: int, seed: int = 0) -> Tensor:
        """Rows of a class-balanced subset of ``n`` images: the first n/classes of each class in a fixed
        random order, so that the subset for 100 is part of the one for 1,000. Sorted.

        Raises:
            DataError: fewer images than asked for, or than classes.
        """
        if n < self.classes or n > len(self):
            raise DataError(
                f"{n} labels cannot be taken class-balanced from {len(self)} images of {self.classes} "
                f"classes; ask for {self.classes} to {len(self)}"
            )
        order = rng.permutation(seed, "balanced", len(self))
        labels = self.labels[order]
        rank = torch.zeros_like(labels)
        for label in labels.unique():
            mine = labels == label
            rank[mine] = torch.arange(int(mine.sum()))
        first = torch.argsort(rank * self.classes + labels, stable=True)[:n]
        return order[first].sort().values

    def holdout(self, fraction: float, seed: int = 0) -> tuple[Data, Data]:
        """(rest, held out): a fixed class-balanced share to choose checkpoints by."""
        held = self.balanced(max(self.classes, round(len(self) * fraction)), seed)
        rest = torch.ones(len(self), dtype=torch.bool)
        rest[held] = False
        return self.take(rest.nonzero()[:, 0]), self.take(held)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over pixels and labels; the same for files and for the tensor that they decode to."""
        digest = hashlib.sha256(f"{self.images.dtype}{tuple(self.images.shape)}".encode())
        rows = 1 + _PIECE // math.prod(self.shape)
        for first in range(0, len(self), rows):
            pixels = self.images[first : first + rows].contiguous()
            digest.update(pixels.view(-1).view(torch.uint8).numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def facts(self) -> DataFacts:
        """Name, split, fingerprint and size, for cards and results."""
        return DataFacts(name=self.name, split=self.split, fingerprint=self.fingerprint, n=len(self))
