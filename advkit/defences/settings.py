"""Configurations of detectors and of their evaluation; imports no torch, so that help is fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from advkit.core.config import Fraction, Precision, StrictModel
from advkit.core.names import (
    Architecture,
    AttackNames,
    AttackParameters,
    DataName,
    DefenceName,
    DefenceParameters,
    DetectorParameters,
)
from advkit.models.foreign_settings import ForeignModel
from advkit.training.settings import Fitting

if TYPE_CHECKING:
    from advkit.core.threat import Threat


class _Detecting(StrictModel):
    """What is to be detected. A base of its own, so that help lists these options first."""

    model: str
    """Classifier whose adversarial images are to be detected: a file, a run folder, a name in the store."""
    data: DataName | None = None
    """Data set (see `advkit ls data`); by default what the classifier was trained on."""
    attack: AttackNames = Field(("pgd",), min_length=1)
    """Attacks that make the adversarial examples, each run on every image, separated by commas."""
    parameters: AttackParameters = {}
    """Parameters of the attacks, as --set parameters.pgd.steps=100."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured."""
    eps: Fraction | None = Field(None, gt=0)
    """Largest change allowed, for pixels in [0, 1]; by default from the data set's default threat model."""
    n: int = Field(10000, ge=2)
    """Largest number of training images to attack."""
    discriminator: str | None = None
    """GAN discriminator whose features initialise the detector: a file, a run folder or a store name."""
    detector_arch: Architecture = "small-cnn"
    """Otherwise, its architecture, a classifier's, with fresh weights (see `advkit ls architectures`)."""
    architecture: DetectorParameters = {}
    """That architecture's own parameters, as --set architecture.KEY=VALUE."""
    holdout: Fraction = Field(0.1, gt=0, lt=1)
    """Share of these images, kept out of training to choose the best checkpoint."""
    name: str | None = None
    """Name in the model store; by default DATA-ARCHITECTURE-detector."""


class DetectorTraining(ForeignModel, Fitting, _Detecting):
    """Train a detector of a classifier's adversarial images.

    It learns to distinguish clean training images from adversarial ones, which the classifier misclassifies.
    `advkit detector-eval` evaluates it.
    """

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.discriminator is not None and (
            self.architecture or self.detector_arch != type(self).model_fields["detector_arch"].default
        ):
            raise ValueError(
                "a discriminator has its own architecture; leave detector_arch and architecture out"
            )
        if self.extra_data is not None:
            raise ValueError("a detector learns no classes; leave extra_data out")
        return self


class Judged(StrictModel):
    """A defended classifier and the attacks. A base of its own, so that help lists these options first."""

    model: str
    """Classifier: a file, a run folder, a name in the store, advkit:NAME, torchvision:NAME,
    package.module:function."""
    data: DataName | None = None
    """Data set, of which test images are used; by default what the classifier was trained on."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured."""
    eps: Fraction | None = Field(None, gt=0)
    """Largest change allowed, for pixels in [0, 1]; by default from the data set's default threat model."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    precision: Precision = "auto"
    """Arithmetic of the search (auto: bfloat16 where the processor has it); successes are confirmed in the
    networks' own."""
    attack: AttackNames = Field(("pgd", "apgd-t", "square"), min_length=1)
    """Attacks and ensembles, in order, separated by commas (see `advkit ls attacks` and `ensembles`)."""
    parameters: AttackParameters = {}
    """Parameters of the attacks, as --set parameters.pgd.steps=100."""

    def on(self, data: str, threat: Threat) -> Self:
        """The same with the data and the threat model that were used by default."""
        return self.model_copy(update={"data": self.data or data, "norm": threat.norm, "eps": threat.eps})


class Detection(ForeignModel, Judged):
    """Judge a detector by adaptive attacks.

    Thresholds are fixed on clean test images other than those that are judged. An attack succeeds with an
    image that is misclassified and not flagged. The same attacks without knowledge of the detector
    (non-adaptive) are reported, too.
    """

    detector: str
    """Detector (see `advkit detector-train`): a file, a run folder or a name in the store."""
    n: int = Field(500, ge=1)
    """Largest number of test images to judge."""
    held: int = Field(1000, ge=1)
    """Other test images, on which thresholds are fixed; half of the split at most."""
    rates: tuple[Fraction, ...] = Field((0.01, 0.05), min_length=1)
    """False-positive rates, each with a threshold of its own."""
    detector_weights: tuple[float, ...] = Field((0.1, 1.0), min_length=1)
    """Weights of the detector in the loss that the attack maximises, each tried in turn."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not all(0 < rate < 1 for rate in self.rates):
            raise ValueError("rates must be between 0 and 1, as 0.01")
        if not all(weight > 0 for weight in self.detector_weights):
            raise ValueError("detector_weights must be positive")
        for name in ("rates", "detector_weights", "attack"):
            if len(set(values := getattr(self, name))) < len(values):
                raise ValueError(f"{name} names something twice; name each once")
        return self


class Purification(ForeignModel, Judged):
    """Judge a defence that changes images before classification (a purifier) by adaptive attacks.

    They replace it by the identity in the backward pass (BPDA), and also use its true gradient if it has one.
    The same attacks on the bare classifier (non-adaptive) are reported, too.
    """

    defence: DefenceName
    """The purifier (see `advkit ls defences`)."""
    generator: str | None = None
    """Generator or VAE inside it: a file, a run folder or a name in the store."""
    purifier: DefenceParameters = {}
    """The defence's own parameters, as --set purifier.KEY=VALUE."""
    attack: AttackNames = Field(("pgd",), min_length=1)
    """Attacks and ensembles, in order, separated by commas (see `advkit ls attacks` and `ensembles`)."""
    n: int = Field(100, ge=1)
    """Number of test images, the first ones; some defences are expensive."""
