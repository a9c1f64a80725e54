"""The data type: images and labels of one split, held in memory as 8-bit levels where they fit."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from advkit.core import levels, rng
from advkit.core.errors import ConfigError, DataError
from advkit.core.notes import Note
from advkit.core.threat import Threat
from advkit.data.image_files import ImageFiles
from advkit.data.row_order import by_class
from advkit.models.card import DataFacts, Shape

_PIECE = 2**24
"""Values of pixels that are worked on at a time."""
_LOOKED_AT, _DARK = 32, 1 / 8
"""Images that are looked at, and the brightest value that leaves them dark."""
_PASS = 2**22
"""The same in a pass of a model, whose layers take many times the memory of its images."""


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
    shuffled: bool = False
    """Whether the order of the rows is random by definition, so that the first ones are a sample."""
    notes: tuple[Note, ...] = ()
    """What was assumed, changed or left out on the way from what was given to these images."""

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
            known = self.classes_known  # else they are counted by the largest label
            but, end = (f" but {self.classes} classes", f" to {self.classes - 1}") if known else ("", "")
            raise DataError(f"{where} has labels from {low} to {high}{but}; number the labels from 0{end}")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        facts = (f"{len(self):,} images of {size}", f"{self.classes} classes", *map(str, self.notes))
        return f"<Data {self.name} ({self.split}): {'; '.join(facts)}>"

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
        """Images as float32 in [0, 1] and their labels, on ``device``; ``index`` are rows of this object.

        The images are contiguous, since a model may use ``view``."""
        images = self.images[index].contiguous().to(device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = levels.as_image(images)
        return images, self.labels[index].to(device, non_blocking=True)

    def expect(self, index: Sequence[int]) -> None:
        """Rows that are wanted next: files are decoded on a thread while the caller computes. What `batch`
        returns does not depend on it."""
        if isinstance(self.images, ImageFiles):
            self.images.expect(index)

    def batches(
        self, pieces: Sequence[Tensor], device: torch.device | str = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(rows, `batch` of them) of each piece, where the next one is read while the caller computes."""
        for index, following in itertools.zip_longest(pieces, pieces[1:]):
            images, _ = self.batch(index, device)
            if following is not None:
                self.expect(following.tolist())
            yield index, images

    def pieces(self, most: int) -> tuple[Tensor, ...]:
        """All rows in parts of ``most`` images, or of as many as `at_once` allows."""
        return tuple(torch.arange(len(self)).split(self.at_once(most)))

    def at_once(self, most: int) -> int:
        """Images that pass a model together: ``most``, or fewer where these are large, but 16 at least."""
        return min(most, max(16, _PASS // math.prod(self.shape)))

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

    def refuse_labels_beyond(self, classes: int) -> None:
        """Refuses labels that a model of so many classes has no output for.

        Raises:
            DataError: a label is ``classes`` or more.
        """
        if (highest := int(self.labels.max())) >= classes:
            raise DataError(
                f"data {self.name!r} has label {highest} but the model has only {classes} classes "
                f"(0 to {classes - 1}); choose data or a model that fits"
            )

    def take(self, index: Tensor) -> Data:
        """The rows ``index`` as data of their own, with their ids; files stay undecoded."""
        images = self.images.take(index) if isinstance(self.images, ImageFiles) else self.images[index]
        return replace(self, images=images, labels=self.labels[index], ids=self.ids[index])

    def noting(self, *notes: Note) -> Data:
        """The same data with further notes, each once."""
        return replace(self, notes=tuple(dict.fromkeys((*self.notes, *notes))))

    def limit(self, n: int | None, *, first: bool = False) -> Data:
        """``n`` images, or all of them: the first ones where the order of the rows is random, else a sample.

        Registered data sets are published in random order, and figures on their first n images are
        comparable with each other and with those of other tools; these are always the first n. Folders are
        in the order of their classes, and arrays and files may be: of 600 images of three classes, the
        first 200 are of one class, and an interval that takes them for a sample is wrong. Where the labels
        show such an order, a fixed class-balanced sample is taken instead. It is drawn with seed 0
        whatever the seed of an attack, so that runs with different seeds are of the same images.

        Args:
            n: how many; None: all.
            first: the first ones in any case.

        Raises:
            ConfigError: ``n`` is not positive.
        """
        if n is not None and n < 1:
            raise ConfigError(f"data {self.name!r} cannot be limited to {n} images; ask for at least 1")
        if n is None or n >= len(self):
            return self
        if self.shuffled or not by_class(self.labels):
            return self.take(torch.arange(n))
        chosen = self.take(torch.arange(n) if first else self._sample(n))
        counts = chosen.labels.unique(return_counts=True)[1]
        low, high = int(counts.min()), int(counts.max())
        if first:
            there = len(self.labels.unique())
            said = f"the first {n:,} of {len(self):,} images, of {len(counts)} of the {there} classes"
            return chosen.noting(Note("first-rows", f"{said}; the rows are in class order"))
        each = f"{low}" if low == high else f"{low} to {high}"
        said = f"{n:,} of {len(self):,} images, {each} of each of {len(counts)} classes, drawn with seed 0"
        return chosen.noting(Note("sample", f"{said}; the rows are in class order"))

    def noting_darkness(self) -> Data:
        """Itself, with a note if its first images use a small part of the range alone: levels of 12 bits in
        files of 16, or floats that were divided by 255 twice."""
        first, _ = self.batch(torch.arange(min(_LOOKED_AT, len(self))))
        if (brightest := float(first.max())) > _DARK:
            return self
        how = f"no value of the first {len(first)} images is above {brightest:.3g}, where white is 1"
        return self.noting(
            Note("dark", f"{how}: were they scaled twice, or do they have fewer bits than their files?")
        )

    def balanced(self, n: int, seed: int = 0) -> Tensor:
        """Rows of a class-balanced subset of ``n`` images: the first n/classes of each class in a fixed
        random order, so that the subset for 100 is part of the one for 1,000. Sorted.

        Raises:
            DataError: fewer images than asked for, or than classes.
        """
        if n < self.classes or n > len(self):
            few = (
                f"ask for {self.classes} to {len(self)}" if self.classes <= len(self) else "take more images"
            )
            raise DataError(
                f"{n} images cannot be taken class-balanced from the {len(self)} of {self.classes} classes "
                f"of {self.name!r}; {few}"
            )
        return self._in_turns(n, seed, torch.arange(self.classes))

    def _sample(self, n: int) -> Tensor:
        """As `balanced`, of fewer images than classes too: which classes have one more is random."""
        return self._in_turns(n, 0, rng.permutation(0, "classes", self.classes))

    def _in_turns(self, n: int, seed: int, turn: Tensor) -> Tensor:
        """``n`` rows, one of each class at a time, where class c comes in place ``turn[c]``."""
        order = rng.permutation(seed, "balanced", len(self))
        labels = self.labels[order]
        rank = torch.zeros_like(labels)
        for label in labels.unique():
            mine = labels == label
            rank[mine] = torch.arange(int(mine.sum()))
        first = torch.argsort(rank * self.classes + turn[labels], stable=True)[:n]
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
        """Name, split, fingerprint, size and notes, for cards and results."""
        return DataFacts(
            name=self.name, split=self.split, fingerprint=self.fingerprint, n=len(self), notes=self.notes
        )
