"""Configuration of AdvGAN; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, DataName, OpponentParameters, Pair, PerturbationParameters
from advkit.models.foreign_settings import ForeignModel


class AdvGanSettings(StrictModel):
    """How a perturbation generator is trained."""

    target: int | str | None = None
    """The class that the classifier is to see, name or number; by default any wrong one will do."""
    steps: int = Field(2000, ge=1)
    """Updates of the generator."""
    batch_size: int = Field(128, ge=2)
    """Images an update."""
    rate: float = Field(5e-3, gt=0)
    """Learning rate (Adam); it falls to 0 along half a cosine."""
    kappa: float = Field(5.0, ge=0)
    """By how much a wrong class is to lead, in logits; where it leads by more, nothing is asked (Carlini and
    Wagner 2017)."""
    gan_weight: float = Field(0.1, ge=0)
    """Weight of the discriminator's judgement beside the classifier's margin; 0 for no discriminator."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the averaged weights, an update; 0 for none. The average is what is tested and kept."""
    generator: PerturbationParameters = {}
    """The perturbation generator's own parameters, as --set generator.KEY=VALUE."""
    opponent: Pair = "conv-gan"
    """Pair whose discriminator tells images from adversarial ones (see `advkit ls pairs`)."""
    discriminator: OpponentParameters = {}
    """The discriminator's own parameters, as --set discriminator.KEY=VALUE."""
    black_box: Literal["static", "dynamic"] | None = None
    """Use nothing but the classifier's answers: the generator is trained against a copy, which is trained
    once before (static), or again and again, on what the generator makes by then, too (dynamic)."""
    queries: int = Field(10000, ge=2)
    """With --black-box: images that the classifier is asked about at most."""
    answers: Literal["labels", "probabilities"] = "labels"
    """With --black-box: what it answers, the predicted class alone or the probabilities of all."""
    rounds: int = Field(5, ge=2)
    """With --black-box dynamic: how often the copy is trained; half of the queries are made before the first,
    the others in equal parts before the following ones."""
    copy_arch: Architecture = "small-cnn"
    """With --black-box: architecture of the copy (see `advkit ls architectures`)."""
    checks: int = Field(20, ge=1)
    """How often, evenly spread, metrics and a state to resume are written, and held-out images tried."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        idle = {None: ("queries", "answers", "rounds", "copy_arch"), "static": ("rounds",), "dynamic": ()}
        for name in idle[self.black_box]:
            if getattr(self, name) != type(self).model_fields[name].default:
                mode = "static or dynamic" if self.black_box is None else "dynamic"
                raise ValueError(f"{name} means nothing without black_box {mode}; leave it out")
        return self


class _Against(StrictModel):
    """Who is attacked, and where. A base of its own, so that help lists these options first."""

    model: str
    """Classifier to mislead: a file, a run folder, a name in the store, torchvision:NAME,
    package.module:function."""
    data: DataName | None = None
    """Data set (see `advkit ls data`): its training images to learn on, its test images to judge by."""
    norm: Literal["linf", "l2"] | None = None
    """How the size of a change is measured."""
    eps: Fraction | None = Field(None, gt=0)
    """Largest change allowed, for pixels in [0, 1]; a fraction such as 8/255 is fine."""
    n: int = Field(1000, ge=1)
    """Test images to judge by at most, drawn at random."""
    name: str | None = None
    """Name in the model store; by default DATA-advgan."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class AdvGanTraining(ForeignModel, AdvGanSettings, _Against):
    """Train a network that, shown an image, makes an adversarial one in a single pass.

    Without --norm and --eps, the threat model is that of the classifier's card, or the customary one of the
    data. What comes out is an attack: advkit attack --attack advgan:NAME.
    """
