"""The results of patches and universal perturbations, as versioned files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr
from torch import Tensor

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy
from advkit.core.stored import ConfiguredResult
from advkit.models.card import DataFacts, Shape, ThreatFacts


class _Result(ConfiguredResult):
    """Common fields."""

    train: DataFacts
    """Training images."""
    test: DataFacts
    """Test images."""


class _Judged(StrictModel):
    """Common fields of a classifier's evaluation."""

    name: str
    """As given."""
    model_hash: str
    trained_on: bool
    """False for classifiers used for evaluation only."""

    @property
    def label(self) -> str:
        """A name for tables."""
        return Path(self.name).name + ("" if self.trained_on else " (not trained on)")


class Hits(StrictModel):
    """Number of images classified as the target, for each of four patches at the same positions."""

    scale: tuple[float, float]
    """Diameters, from and to, as a share of the image's shorter side."""
    patch: int
    noise: int
    """A patch of random pixels."""
    grey: int
    """A plain grey one."""
    real: int
    """A training image of the target class."""


class PlaceMap(StrictModel):
    """Success of the patch by position, at one size."""

    scale: float
    n: int
    """Images per position."""
    hits: tuple[tuple[int, ...], ...]
    """Images classified as the target; rows from top to bottom, positions from left to right."""


class PatchJudged(_Judged):
    """One classifier under the patch."""

    n: int
    """Test images."""
    clean_correct: int
    judged: int
    """Of those, the ones of other classes than the target, classified correctly without a patch."""
    anywhere: Hits
    """At random position, size and rotation, as in training."""
    by_scale: tuple[Hits, ...]
    by_place: tuple[PlaceMap, ...]
    rate: float
    """Share of the judged images classified as the target, at random positions."""
    interval: Interval
    """Exact 95 % interval of the rate."""


class PatchResult(_Result):
    """One patch and its success."""

    command = "patch"
    schema_name: Literal["advkit/patch"] = Field("advkit/patch", alias="schema")
    target: int
    target_name: str
    shape: Shape
    """Of the images."""
    pixels: int
    """Of the patch, across and down."""
    classifiers: tuple[PatchJudged, ...]
    """Those used for training, then the others."""

    _patch: Tensor | None = PrivateAttr(None)

    @property
    def patch(self) -> Tensor | None:
        """(C, h, w) in [0, 1], of 8-bit levels; None for a result that was read from a file."""
        return self._patch

    def summary(self) -> str:
        """One line of text."""
        first = self.classifiers[0]
        return (
            f"with the patch at random positions, {first.label} predicts {self.target_name!r} on "
            f"{accuracy(first.anywhere.patch, first.judged)} of {first.judged} test images of other classes"
        )


class PerturbationJudged(_Judged):
    """One classifier under the perturbation."""

    n: int
    """Test images."""
    clean_correct: int
    correct: int
    """Classified correctly with the perturbation."""
    fooled: int
    """Images whose predicted class changes."""
    fooled_by_random: int
    """The same for a random perturbation of the same size."""
    judged: int
    """With a target: images that are not classified as it without the perturbation; else all."""
    hits: int
    """With a target: judged images classified as it; else the same as ``fooled``."""
    becomes: dict[str, int]
    """Predicted classes of the fooled images."""
    rate: float
    """Share of the judged images that are hits."""
    interval: Interval
    """Exact 95 % interval of the rate."""


class PerturbationResult(_Result):
    """One universal perturbation and its success."""

    command = "universal"
    schema_name: Literal["advkit/universal"] = Field("advkit/universal", alias="schema")
    threat: ThreatFacts
    size: float
    """The perturbation's own, in the threat's norm."""
    target: int | None
    target_name: str
    classifiers: tuple[PerturbationJudged, ...]
    """Those used for training, then the others."""

    _perturbation: Tensor | None = PrivateAttr(None)

    @property
    def perturbation(self) -> Tensor | None:
        """(C, H, W), to be added and clamped to [0, 1]; None for a result that was read from a file."""
        return self._perturbation

    def summary(self) -> str:
        """One line of text."""
        first = self.classifiers[0]
        effect = "fools" if self.target is None else f"makes {self.target_name!r} the prediction of"
        return (
            f"one perturbation, {self.threat.norm} eps {self.threat.eps:.4g}, {effect} {first.label} on "
            f"{accuracy(first.hits, first.judged)} of {first.judged} test images"
        )
