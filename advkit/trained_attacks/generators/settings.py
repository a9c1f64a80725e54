"""Configuration of AdvGAN; without torch, so that help is instant."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from advkit.core.config import Fraction, StrictModel
from advkit.core.names import Architecture, DataName, OpponentParameters, Pair, PerturbationParameters
from advkit.models.foreign_settings import ForeignModel


class GameSettings(StrictModel):
    """Parameters of a perturbation generator, of its discriminator and of their losses."""

    kappa: float = Field(5.0, ge=0)
    """Margin, in logits, beyond which the attack loss is constant (Carlini and Wagner 2017)."""
    gan_weight: float = Field(0.1, ge=0)
    """Weight of the GAN loss relative to the margin loss; 0 for no discriminator."""
    generator: PerturbationParameters = {}
    """The perturbation generator's own parameters, as --set generator.KEY=VALUE."""
    opponent: Pair = "conv-gan"
    """Pair that the discriminator comes from (see `advkit ls pairs`)."""
    discriminator: OpponentParameters = {}
    """The discriminator's own parameters, as --set discriminator.KEY=VALUE."""


class AdvGanSettings(GameSettings):
    """Parameters of the training of a perturbation generator."""

    target: int | str | None = None
    """Target class, name or number; by default any wrong one."""
    steps: int = Field(2000, ge=1)
    """Updates of the generator."""
    batch_size: int = Field(128, ge=2)
    """Batch size."""
    rate: float = Field(5e-3, gt=0)
    """Learning rate (Adam); it decreases to 0 along half a cosine."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the EMA weights, per update; 0 for none. The EMA weights are evaluated and saved."""
    black_box: Literal["static", "dynamic"] | None = None
    """Query access only: the generator is trained against a distilled copy, which is trained once before
    (static), or repeatedly, on the generator's images too (dynamic)."""
    queries: int = Field(10000, ge=2)
    """With --black-box: query limit, in images."""
    answers: Literal["labels", "probabilities"] = "labels"
    """With --black-box: answers of the classifier, predicted classes or probabilities."""
    rounds: int = Field(5, ge=2)
    """With --black-box dynamic: trainings of the copy; half of the queries are made before the first, the
    others in equal parts before the following ones."""
    copy_arch: Architecture = "small-cnn"
    """With --black-box: architecture of the copy (see `advkit ls architectures`)."""
    checks: int = Field(20, ge=1)
    """Number of checks, evenly spaced: metrics, a checkpoint, and evaluation on held-out images."""
    seed: int = Field(0, ge=0)
    """Seed of all random numbers."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        idle = {None: ("queries", "answers", "rounds", "copy_arch"), "static": ("rounds",), "dynamic": ()}
        for name in idle[self.black_box]:
            if getattr(self, name) != type(self).model_fields[name].default:
                mode = "static or dynamic" if self.black_box is None else "dynamic"
                raise ValueError(f"{name} has no effect without black_box {mode}; leave it out")
        return self


class _Against(StrictModel):
    """The attacked classifier and the data. A separate base, so that help lists these options first."""

    model: str
    """Classifier to attack: a file, a run folder, a name in the store, advkit:NAME,
    torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Data set (see `advkit ls data`): its training images for training, its test images for evaluation."""
    norm: Literal["linf", "l2"] | None = None
    """Norm of the perturbation."""
    eps: Fraction | None = Field(None, gt=0)
    """Perturbation budget, for pixels in [0, 1]; accepts fractions such as 8/255."""
    n: int = Field(1000, ge=1)
    """Test images for evaluation at most, sampled at random."""
    name: str | None = None
    """Name in the model store; by default DATA-advgan."""


class AdvGanTraining(ForeignModel, AdvGanSettings, _Against):
    """Train a network that turns an image into an adversarial one in a single pass.

    Without --norm and --eps, the threat model is that of the classifier's card, or the default threat model
    of the data set. The result is an attack: advkit attack --attack advgan:NAME.
    """
