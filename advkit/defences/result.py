"""What defences are worth, as versioned files; the attack that knows of the defence comes first."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy
from advkit.core.stored import SummarisedResult
from advkit.evaluation.result import Check, Stage
from advkit.models.card import DataFacts, ThreatFacts


class Unaware(StrictModel):
    """An attack on the bare classifier."""

    name: str
    attack: str
    parameters: dict[str, Any]
    """All of them, defaults too."""
    fooled: int
    """Images of which it made a misclassified one."""


class Knowing(StrictModel):
    """An attack on classifier and detector together."""

    name: str
    attack: str
    weight: float
    """Of the detector in what was climbed."""
    attacked: int
    broken: int


class OperatingPoint(StrictModel):
    """One threshold, and what came of it."""

    rate: float
    """False-positive rate that was asked for."""
    threshold: float
    flagged_held: int
    """Of the held-out clean images."""
    flagged_clean: int
    """Of the judged images, before any attack."""
    passed: int
    """Judged images that are classified correctly and not flagged; only these can stand."""
    adaptive: int
    """Of those, the ones that are right or flagged at all that was tried by who knows of the detector."""
    adaptive_interval: Interval
    """Exact 95 % interval of ``adaptive / n``."""
    unaware: int
    """The same for one who does not know."""
    unaware_interval: Interval
    detected: tuple[int, ...]
    """Of what each of the unaware attacks made, how much is flagged."""
    stages: tuple[Knowing, ...]


class DetectionResult(SummarisedResult):
    """One detector in front of one classifier."""

    command = "detector-eval"
    schema_name: Literal["advkit/detection"] = Field("advkit/detection", alias="schema")
    model: str
    model_hash: str
    detector: str
    detector_hash: str
    threat: ThreatFacts
    data: DataFacts
    """What was judged."""
    held: DataFacts
    """What thresholds were fixed on."""
    settings: dict[str, Any]
    n: int
    clean_correct: int
    """Judged images that the classifier gets right, without any detector."""
    bare: int
    """Of those, the ones that the unaware attacks leave: robust accuracy without a detector."""
    attacks: tuple[Unaware, ...]
    points: tuple[OperatingPoint, ...]
    seconds: float
    environment: dict[str, str]

    def summary(self) -> str:
        """One line for people."""
        point = self.points[0]
        return (
            f"at a false-positive rate of {100 * point.rate:g} %, {accuracy(point.adaptive, self.n)} of "
            f"{self.n:,} images are right or flagged under an attack that knows of the detector, "
            f"{accuracy(point.unaware, self.n)} under one that does not; without a detector "
            f"{accuracy(self.bare, self.n)}"
        )


class Recovered(StrictModel):
    """An attack on the bare classifier, purified afterwards."""

    name: str
    attack: str
    fooled: int
    """Images of which it made a misclassified one."""
    recovered: int
    """Of those, the ones that are classified correctly once purified."""


class Aware(StrictModel):
    """Attacks on purifier and classifier together, by one way through the purifier."""

    way: str
    left: int
    """Images that are right after all of them."""
    stages: tuple[Stage, ...]
    checks: tuple[Check, ...]
    """Whether that number can be believed."""


class PurificationResult(SummarisedResult):
    """One purifier in front of one classifier."""

    command = "defence-eval"
    schema_name: Literal["advkit/purification"] = Field("advkit/purification", alias="schema")
    model: str
    model_hash: str
    defence: str
    generator: str | None
    generator_hash: str | None
    purifier: dict[str, Any]
    """All parameters of the defence, defaults too."""
    random: bool
    unaveraged: tuple[str, ...]
    """Attacks up gradients that looked at a random defence only once in a step."""
    threat: ThreatFacts
    data: DataFacts
    settings: dict[str, Any]
    n: int
    clean_correct: int
    """Images that the bare classifier gets right."""
    purified_correct: int
    """Images that are right when they are purified, before any attack."""
    bare: int
    """Images that the unaware attacks leave to the bare classifier."""
    adaptive: int
    """Images that are right after attacks that know of the defence, by all ways, and the unaware ones."""
    adaptive_interval: Interval
    """Exact 95 % interval of ``adaptive / n``."""
    unaware: int
    """Images that are right after attacks that do not know of it."""
    unaware_interval: Interval
    attacks: tuple[Recovered, ...]
    ways: tuple[Aware, ...]
    seconds: float
    environment: dict[str, str]

    def summary(self) -> str:
        """One line for people."""
        return (
            f"behind {self.defence}, {accuracy(self.adaptive, self.n)} of {self.n:,} images are right under "
            f"an attack that knows of it, {accuracy(self.unaware, self.n)} under one that does not; without "
            f"a defence {accuracy(self.bare, self.n)}"
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the attacker may do better than the first number says."""
        told = [
            f"{self.defence} draws random numbers, and {name} looks at it only once in a step; average over "
            f"several passes (EOT): --set parameters.{name}.samples=10"
            for name in self.unaveraged
        ]
        if self.adaptive:
            told += [
                f"{one.way}: {check.detail}" + (f"; {check.remedy}" if check.remedy else "")
                for one in self.ways
                for check in one.checks
                if check.verdict == "doubt"
            ]
        return tuple(told)
