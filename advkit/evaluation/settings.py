"""Configuration of an evaluation; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import Fraction, Precision, StrictModel
from advkit.core.names import Architecture, AttackNames, AttackParameters, DataName
from advkit.models.foreign_settings import ForeignModel


class _Attacking(StrictModel):
    """What is attacked with what. A base of its own, so that help lists these options first."""

    model: str
    """Classifier: a file, a run folder, a name in the store, torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Images to attack (see `advkit ls data`)."""
    split: Literal["test", "train"] = "test"
    """Which part of the data."""
    n: int | None = Field(None, ge=1)
    """Only the first so many images."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured."""
    eps: Fraction | None = Field(None, gt=0)
    """Largest change allowed, for pixels in [0, 1]; a fraction such as 8/255 is fine."""
    attack: AttackNames = Field(("cascade",), min_length=1)
    """Attacks and ensembles, in order, separated by commas (see `advkit ls attacks` and `ensembles`)."""
    parameters: AttackParameters = {}
    """Parameters of the attacks, as --set parameters.pgd.steps=100."""
    budget: int | None = Field(None, ge=1)
    """Passes per image, on average, after which no further attack begins; it can only miss successes."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    precision: Precision = "auto"
    """Arithmetic of the search (auto: bfloat16 where the processor has it); successes are confirmed in the
    model's own."""
    batch_size: int | None = Field(None, ge=1)
    """Images at work at once; changes the speed, not the result."""
    eight_bit: bool = False
    """Only images that a PNG file can hold: rounded to 8 bits, inside the threat model and wrong then."""
    certify: bool = False
    """First prove what can be proved (see `advkit certify`): those images need no attack, and the robust
    accuracy is told from both sides."""
    min_robust: Fraction | None = Field(None, ge=0, le=1)
    """Robust accuracy to reach, as a fraction; exit code 1 when it is missed."""
    save: str | None = None
    """Where to keep the adversarial images: a .npz with originals and labels, a .png for a grid of them, or
    with --eight-bit a folder of PNG files, which --data folder:PATH reads back."""
    bpda: tuple[str, ...] = ()
    """Layers to pass straight through in the backward pass of the search, where they hide the gradient;
    successes are confirmed by the model as it is."""
    surrogate: str | None = None
    """Another classifier, on which attacks that need gradients search in place of the model, which then only
    confirms: what an attacker can do who has a copy (see `advkit substitute`)."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""
    allow_random: bool = False
    """Accept a model whose answers change from pass to pass; the result then says so."""


class Evaluation(ForeignModel, _Attacking):
    """Attack a classifier and report how much of its accuracy survives.

    The attacks run in the given order, each on the images that are still classified correctly. Without
    --data and --eps, the data set is the one that the model was trained on, and the threat model the one
    of its card, or else the customary one of the data.
    """

    @property
    def identity(self) -> Evaluation:
        """The part that determines the verdicts: what a resumed run must share."""
        return self.model_copy(update={"min_robust": None, "save": None, "batch_size": None})
