"""The result of an evaluation, as a versioned file."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor

from advkit.core.config import UNITS, StrictModel
from advkit.core.stats import Interval, accuracy, bracketed, clopper_pearson
from advkit.data.result import SubjectResult
from advkit.models.black_box import QueryCount
from advkit.models.card import ThreatFacts

VERSION = 5
"""1 had no margins, and no names of stages other than their attacks; 2 had no 8-bit images and no remedies,
and numbered the adversarial images; 3 had no certificates and no surrogates; 4 had the flags of a remedy only
in its text."""

COMPLETE = "complete verification"
"""What verdicts call the attack that found an adversarial example in complete verification."""
Status = Literal["misclassified", "broken", "robust", "certified"]


class Verdict(StrictModel):
    """The verdict on one image."""

    id: int
    """Its position in the split."""
    label: int
    status: Status
    """Misclassified without an attack; misclassified under an attack; robust against all; certified and not
    attacked."""
    attack: str | None = None
    """The stage that broke it."""
    iteration: int = 0
    """Step of its success."""
    variant: int = 0
    """Number of the start (or target) that succeeded."""
    distance: float | None = None
    """From the original to the adversarial image, in the threat's norm."""
    margin: float | None = None
    """Of a robust image: the largest margin that any attack reached; above 0 it would be misclassified."""
    image_sha256: str | None = None
    """Of the adversarial image in ``adversarial.bin``, of its bytes in float32."""
    forwards: int = 0
    """Forward passes spent on it by all attacks; of a black box all queries about it."""
    backwards: int = 0


class Stage(StrictModel):
    """One attack, on the images that were robust when it began."""

    name: str = ""
    """Its name in the verdicts: the attack's name, or of a part of an ensemble as `advkit ls ensembles NAME`
    lists it."""
    attack: str
    parameters: dict[str, Any]
    """All parameters, including defaults."""
    attacked: int
    """Number of images that it attacked."""
    broken: int
    correct_after: int
    """Images still classified correctly after it."""
    forwards: int
    backwards: int
    left: int = 0
    """Images that were robust when it began and that it did not attack, because little was to be found."""
    at_most: float | None = None
    """Upper limit of the share of these that it would break (`advkit.evaluation.cascade.most_common`); None
    if it tried none or all."""
    transferred: bool = False
    """Whether it searched on a surrogate, which took most of its passes; the model itself only confirmed."""

    @property
    def passes(self) -> int:
        """Forward and backward."""
        return self.forwards + self.backwards

    @model_validator(mode="after")
    def _named(self) -> Stage:
        if not self.name:
            object.__setattr__(self, "name", self.attack)
        return self


class Check(StrictModel):
    """The outcome of a sanity check: a reason to trust the robust accuracy, or to doubt it."""

    name: str
    verdict: Literal["ok", "doubt"]
    detail: str
    """The observation."""
    remedy: str = ""
    """What to do about a doubt, for people."""
    flags: str = ""
    """The options of ``advkit attack`` for it, if there are any."""


class Missing(StrictModel):
    """What a random sample of the survivors says about the others: how many long attacks, Square with
    5,000 queries and targeted Auto-PGD with 100 steps (in l2 and l1 targeted FMN, too), would still break if
    they attacked all of them. What the same stages of ``cascade`` did is known and not sampled. It does not
    bound what other attacks find."""

    sample: int
    """Size of the sample."""
    survivors: int
    """Images that it was drawn from: robust, and not yet attacked by both."""
    hits: int
    """Images of the sample that were broken."""
    broken: int
    """All images that were broken: if any of the sample is, the attacks go on to all survivors."""
    by: tuple[str, ...] = ()
    """The attacks that broke them."""
    at_most: int
    """Images that may be missing, with 95 %, beyond those that were broken."""
    points: float
    """The same in percentage points of n."""
    looks: int = 1
    """2: all of this is of a second sample, attacked with other random numbers, after some of the first were
    broken and all survivors were attacked."""


class Limited(StrictModel):
    """The part of a plan that fits into a time limit (`advkit.evaluation.time_limit`), chosen before the
    attacks began."""

    seconds: float
    """The limit."""
    needed: float
    """The limit that the whole plan would need, from the pilot."""
    images: int
    """That are attacked."""
    of: int
    """Images that were asked for."""
    stages: tuple[str, ...]
    """The stages that are kept."""
    left_out: tuple[str, ...]
    """The others."""
    sample: int
    """Survivors that the check on a random sample attacks, at most."""
    sample_of: int
    """The same of the whole plan."""
    budget: int | None
    """Average number of passes per image after which no further attack begins, should the pilot be wrong."""
    cut_short: tuple[str, ...] = ()
    """What this budget ended, or kept from beginning."""

    @property
    def weaker(self) -> bool:
        """Whether images see less than by the whole plan."""
        return bool(self.left_out or self.cut_short) or self.sample < self.sample_of

    @property
    def shortened(self) -> str:
        """What is left out, in words; empty if nothing is."""
        parts = [f"{self.of - self.images:,} of {self.of:,} images"] if self.images < self.of else []
        if self.left_out:
            of = len(self.stages) + len(self.left_out)
            parts.append(f"the last {len(self.left_out)} of {of} stages (from {self.left_out[0]} on)")
        if not self.sample and self.sample_of:
            parts.append("the check on a random sample")
        elif self.sample < self.sample_of:
            parts.append(f"{self.sample_of - self.sample} of {self.sample_of} images of the random sample")
        said = [f"leaves out {' and '.join(parts)}"] if parts else []
        if self.cut_short:
            said.append(f"cut short {', '.join(self.cut_short)}, which took more passes than expected")
        return f"the time limit of {in_units(self.seconds)} {' and '.join(said)}" if said else ""

    @property
    def flag(self) -> str:
        """The option that leaves nothing out."""
        return f"--time-limit {in_units(60 * math.ceil(self.needed / 60))}"


class Cost(StrictModel):
    """What the attacks and the pass before them cost, without the sanity checks, whose cost grows little with
    the images; and what the same plan would cost on all images of the data set."""

    passes: float
    """Forward and backward passes of an image, on average."""
    seconds: float | None
    """Seconds of an image on this machine, with its reading; None where earlier processes attacked."""
    images: int
    """Images of the data set."""
    all_passes: float
    """Passes on all of them; of more images, stages in rounds and the random sample attack a smaller part."""
    all_seconds: float | None
    """Seconds of all of them."""


def in_units(seconds: float) -> str:
    """A time as one would type it: ``90s``, ``10m`` or ``2h``."""
    unit = next(name for name in ("h", "m", "s") if seconds % UNITS[name] == 0 or name == "s")
    return f"{seconds / UNITS[unit]:g}{unit}"


class EvaluationResult(SubjectResult):
    """Clean and robust accuracy of one model under one threat model, with all verdicts.

    A robust accuracy is an upper bound: a stronger attack may find more. After ``cascade`` it counts what the
    sanity checks broke, too.
    """

    command = "attack"
    newest = VERSION
    added = (
        *("eight_bit", "surrogate_hash", "certified_correct", "certified_interval"),
        *("missing", "limited", "cost", "queries"),
    )
    counted = {
        "clean_correct": ("broken", "robust", "certified"),
        "robust_correct": ("robust", "certified"),
        "certified_correct": ("certified",),
    }

    schema_name: Literal["advkit/evaluation"] = Field("advkit/evaluation", alias="schema")
    version: int = VERSION
    threat: ThreatFacts
    surrogate_hash: str | None = None
    """Hash of the surrogate, if any."""
    seed: int
    precision: str
    eight_bit: bool = False
    """Whether adversarial images have 8-bit pixel values, so that a PNG file holds them exactly."""
    clean_correct: int
    robust_correct: int
    certified_correct: int | None = None
    """Certified images among these; None without certification."""
    stages: tuple[Stage, ...]
    checks: tuple[Check, ...]
    missing: Missing | None = None
    """How many points may be missing, from a random sample; None without one."""
    limited: Limited | None = None
    """What was chosen for a time limit; None without one."""
    cost: Cost | None = None
    """Of an image, and of the whole data set; None in results of earlier versions."""
    forwards: int
    backwards: int
    verdicts: tuple[Verdict, ...]
    queries: QueryCount | None = None
    """What a black box was asked; None: the model is none."""
    clean_accuracy: float
    robust_accuracy: float
    clean_interval: Interval
    """Exact 95 % interval of the clean accuracy."""
    interval: Interval
    """Exact 95 % interval of the robust accuracy."""
    certified_interval: Interval | None = None
    """Exact 95 % interval of the certified accuracy."""

    _adversarial: Tensor | None = PrivateAttr(None)

    @classmethod
    def of(cls, n: int, clean: int, robust: int, certified: int | None, **facts: Any) -> EvaluationResult:
        """A result with the shares of these counts: all images, those that are right, robust, certified."""
        return cls(
            **facts,
            n=n,
            clean_correct=clean,
            robust_correct=robust,
            certified_correct=certified,
            clean_accuracy=clean / n,
            robust_accuracy=robust / n,
            clean_interval=clopper_pearson(clean, n),
            interval=clopper_pearson(robust, n),
            certified_interval=None if certified is None else clopper_pearson(certified, n),
        )

    @property
    def adversarial(self) -> Tensor | None:
        """(n, C, H, W) float32: adversarial images, originals where there is none; None unless kept."""
        return self._adversarial

    @property
    def certified_accuracy(self) -> float | None:
        """The share of certified images; None without certification."""
        return None if self.certified_correct is None else self.certified_correct / self.n

    @property
    def between(self) -> str:
        """The robust accuracy in words: its upper bound, or lower and upper bound with certification."""
        if self.certified_correct is None:
            return f"robust accuracy {accuracy(self.robust_correct, self.n)}"
        return bracketed(self.certified_correct, self.robust_correct, self.n)

    def summary(self) -> str:
        """One line for people."""
        return (
            f"clean accuracy {accuracy(self.clean_correct, self.n)}, {self.between} at "
            f"{self.threat.norm} eps {self.threat.eps:.4g} "
            f"{'in 8 bits ' if self.eight_bit else ''}(n = {self.n}, {self.data.name} {self.data.split})"
        )

    @property
    def trusted(self) -> bool:
        """Whether no check raises a doubt."""
        return all(check.verdict == "ok" for check in self.checks)

    @property
    def trust(self) -> str:
        """One sentence: whether to trust the robust accuracy, and if not, why and what to do."""
        if not self.trusted:
            doubts = [check for check in self.checks if check.verdict == "doubt"]
            first, more = doubts[0], len(doubts) - 1
            others = f" ({more} more {'check doubts' if more == 1 else 'checks doubt'} it)" if more else ""
            remedy = f"; {first.remedy}" if first.remedy else ""
            return f"Do not believe this number yet: {first.detail}{others}{remedy}."
        if self.queries is not None and self.robust_correct:
            return (
                f"Believe this number as an upper bound from queries only ({self.queries.access}): an attack "
                "with gradients, or with more queries, could lower it."
            )
        if self.robust_correct == 0:
            return "Believe this number: no image is robust, and the model itself confirmed every success."
        if self.robust_correct == self.certified_correct:
            return "Believe this number: every robust image is certified, and no attack can lower it."
        if (seen := self.missing) is not None and not seen.survivors:
            return "Believe this number as an upper bound: the long attacks attacked every survivor."
        if seen is not None:
            return (
                f"Believe this number as an upper bound: at most {seen.points:.1f} points may be missing "
                f"(95 %), of what long attacks find: they broke {seen.hits} of {seen.sample} robust images, "
                f"drawn at random from {seen.survivors}."
            )
        return (
            f"Believe this number as an upper bound: none of {len(self.checks)} checks found a reason for "
            "doubt, and a stronger attack could only lower it."
        )

    def __str__(self) -> str:
        return self.said(self.trust)

    def _repr_html_(self) -> str:
        rows = (
            (one.name, f"{one.broken} of {one.attacked}", accuracy(one.correct_after, self.n))
            for one in self.stages
        )
        return self._html(("attack", "broke", "accuracy left"), rows)

    @classmethod
    def of_today(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Up to version 2 a verdict had its position; up to 4 the text of a remedy ended with its flags."""
        for verdict in values.get("verdicts", ()):
            verdict.pop("place", None)
        for check in values.get("checks", ()):
            last = check.get("remedy", "").rpartition(": ")[2]
            check.setdefault("flags", last if last.startswith("--") else "")
        return values | {"version": VERSION}
