"""What is known about a model, kept in the same file as its weights."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, model_validator

from advkit.core.config import StrictModel
from advkit.core.notes import Note
from advkit.core.threat import Norm

SCHEMA: Final = "advkit/model"
VERSION = 2
"""In files of version 1 the card has no seal, and the digest of the weights has the name of today's seal."""

Role = Literal[
    "classifier", "generator", "discriminator", "vae", "perturbation-generator", "detector", "features"
]
Relation = Literal[
    "discriminator-of",
    "ema-of",
    "fine-tuned-from",
    "hardened-from",
    "distilled-from",
    "decoder-of",
    "trained-against",
    "rounded-from",
]
Shape = tuple[int, int, int]
"""(channels, height, width)"""


class Preprocessing(StrictModel):
    """How pixels in [0, 1] become what the network was trained on: stretched to ``pixel_range``, then
    normalised by ``mean`` and ``std`` per channel; and what comes out of it."""

    pixel_range: tuple[float, float] = (0.0, 1.0)
    """Input range of the network: (0, 255) or (-1, 1) for some foreign models."""
    mean: tuple[float, ...] = ()
    """Per channel, in units of ``pixel_range``; empty for none."""
    std: tuple[float, ...] = ()
    """Per channel, in units of ``pixel_range``; empty for none."""
    outputs: Literal["logits", "probabilities"] = "logits"
    """Probabilities (softmax outputs) are turned into logits by their logarithm."""


class Parent(StrictModel):
    """A model that this one comes from."""

    relation: Relation
    hash: str
    name: str = ""
    """Its name in the store when the child was made."""


class DataFacts(StrictModel):
    """Which images a model was trained, or a figure measured, on."""

    name: str
    split: str
    fingerprint: str
    n: int
    notes: tuple[Note, ...] = ()
    """What was assumed, changed or left out when the images were read."""


class ThreatFacts(StrictModel):
    """A threat model as plain values."""

    norm: Norm
    eps: float


class Accuracy(StrictModel):
    """An accuracy that a run has measured."""

    name: Literal["clean", "robust", "certified"]
    """A robust one is an upper bound, a certified one a lower bound."""
    correct: int
    """Images, of those in ``data``."""
    data: DataFacts
    threat: ThreatFacts | None = None
    """None of a clean one."""
    doubts: tuple[str, ...] = ()
    """Of a robust one, the checks that doubt it: a stronger attack may leave less."""


class ModelCard(StrictModel):
    """The card of one model."""

    schema_name: Literal["advkit/model"] = Field(SCHEMA, alias="schema")
    version: int = VERSION
    role: Role
    architecture: str
    """A registered architecture, ``torchvision:NAME`` or ``package.module:factory``."""
    config: dict[str, Any] = {}
    """The architecture's own parameters; absent ones have their defaults."""
    shape: Shape
    """Images that go in (or come out of a generator): (channels, height, width)."""
    classes: int | None = None
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the outputs."""
    preprocessing: Preprocessing = Preprocessing()
    lineage: tuple[Parent, ...] = ()
    data: DataFacts | None = None
    """What it was trained on."""
    threat: ThreatFacts | None = None
    """The threat model it was trained against."""
    training: dict[str, Any] = {}
    """The command and its resolved configuration."""
    metrics: dict[str, float] = {}
    accuracies: tuple[Accuracy, ...] = ()
    """What ``advkit models export --runs`` took from runs of this model."""
    created: str = ""
    advkit: str = ""
    """Version that wrote it."""
    notes: str = ""

    @model_validator(mode="after")
    def _hangs_together(self) -> ModelCard:
        if min(self.shape) < 1:
            raise ValueError(f"shape {self.shape} must be (channels, height, width), each 1 or more")
        prepared = self.preprocessing
        for name, values in (("mean", prepared.mean), ("std", prepared.std)):
            if len(values) not in (0, 1, self.shape[0]):
                raise ValueError(f"{name} {values} must have one value for each of {self.shape[0]} channels")
        if any(value <= 0 for value in prepared.std):
            raise ValueError(f"std {prepared.std} must be positive")
        if prepared.pixel_range[0] >= prepared.pixel_range[1]:
            raise ValueError(f"pixel_range {prepared.pixel_range} must be (lowest, highest)")
        if self.labels and self.classes is not None and len(self.labels) != self.classes:
            raise ValueError(f"{len(self.labels)} labels for {self.classes} classes; give one for each")
        return self
