"""Configuration of an evaluation; imports no torch, so that help is fast."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from advkit.core.config import Fraction, Precision, Seconds
from advkit.core.names import AttackNames, AttackParameters, CheckNames
from advkit.core.shards import Sharded
from advkit.models.foreign_settings import SubjectFields, SubjectSettings


class Attacking(SubjectFields):
    """Options that help lists before those of foreign models."""

    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured."""
    eps: Fraction | None = Field(None, gt=0)
    """Largest change allowed, for pixels in [0, 1]; a fraction such as 8/255 is fine."""
    attack: AttackNames = Field(("cascade",), min_length=1)
    """Attacks and ensembles, in order, separated by commas (see `advkit ls attacks` and `ensembles`)."""
    parameters: AttackParameters = {}
    """Parameters of the attacks, as --set parameters.pgd.steps=100."""
    budget: int | None = Field(None, ge=1)
    """Average number of passes per image after which no further attack begins; it can only miss successes."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    precision: Precision = "auto"
    """Arithmetic of the search (auto: bfloat16 where the processor has it); successes are confirmed in the
    model's own."""
    batch_size: int | None = Field(None, ge=1)
    """Images attacked at once; it changes the result by rounding at most."""
    eight_bit: bool = False
    """Round adversarial images to 8 bits, as in a PNG file; they must be misclassified after rounding."""
    certify: bool | Literal["complete"] = False
    """First certify images (see `advkit certify`), which are then not attacked: the result has a lower and an
    upper bound of the robust accuracy. --certify complete also proves or breaks the rest by branch and bound,
    on small networks the exact robust accuracy."""
    check_sample: int | None = Field(None, ge=0)
    """Survivors, drawn at random, that long attacks attack to bound how many points may be missing; by
    default twice the root of --n after cascade, and none after other attacks."""
    bpda: tuple[str, ...] = ()
    """Layers that the search replaces by the identity in the backward pass, because they mask the gradient;
    successes are confirmed on the unchanged model."""
    surrogate: str | None = None
    """Another classifier, whose gradients the attacks use; the model only confirms: a transfer attack, for
    example from a copy (see `advkit substitute`)."""
    allow_random: bool = False
    """Accept a model whose outputs change from pass to pass; the result notes it."""


class _Asked(Attacking):
    time_limit: Seconds | None = Field(None, gt=0)
    """Time for all of it on this machine, as 90s, 10m or 2h: a pilot chooses the part of the plan that fits,
    and the result says what is left out."""
    min_robust: Fraction | None = Field(None, ge=0, le=1)
    """Required robust accuracy, as a fraction; below it, or with a doubt, the exit code is 1."""
    min_robust_of: Literal["accuracy", "interval"] = "accuracy"
    """What must reach it: the robust accuracy, or the lower end of its 95 % interval."""
    accept_doubt: CheckNames = ()
    """Checks (see `advkit ls checks`) whose doubt does not fail --min-robust."""
    save: str | None = None
    """Where to keep the adversarial images: a .npz with originals and labels, a .png for a grid of them, or
    with --eight-bit a folder of PNG files, which --data folder:PATH reads back."""


class Evaluation(Sharded, SubjectSettings, _Asked):
    """Attack a classifier and report its robust accuracy.

    The attacks run in the given order, each on the images that are still classified correctly. By default,
    the data set is the one that the model was trained on, and the threat model that of its robust training,
    else the default of the data set.
    """

    irrelevant: ClassVar = ("min_robust", "min_robust_of", "accept_doubt", "save", "batch_size")
