"""Detectors, and robust accuracy of defended classifiers (the adaptive attack first), as versioned files."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stats import Interval, accuracy
from advkit.core.stored import ConfiguredResult
from advkit.evaluation.result import Check, Stage
from advkit.models.card import DataFacts, ThreatFacts
from advkit.training.result import ModelTraining


class DetectorResult(ModelTraining):
    """One trained detector."""

    command = "detector-train"
    schema_name: Literal["advkit/detector"] = Field("advkit/detector", alias="schema")
    kept_step: int
    """Update of the checkpoint that was kept."""
    learnt: tuple[int, int]
    """Training images: clean, adversarial."""
    held_out: tuple[int, int]
    """Images that chose the checkpoint: clean, adversarial."""
    held_out_accuracy: float


class NonAdaptive(StrictModel):
    """A non-adaptive attack: on the bare classifier."""

    name: str
    attack: str
    parameters: dict[str, Any]
    """All of them, defaults too."""
    fooled: int
    """Images for which it found an adversarial example."""


class Adaptive(StrictModel):
    """An adaptive attack: on classifier and detector together."""

    name: str
    attack: str
    weight: float
    """Of the detector in the loss."""
    attacked: int
    broken: int


class OperatingPoint(StrictModel):
    """The figures at one threshold."""

    rate: float
    """False-positive rate that was requested."""
    threshold: float
    flagged_held: int
    """Of the held-out clean images."""
    flagged_clean: int
    """Of the judged images, before any attack."""
    passed: int
    """Judged images that are classified correctly and not flagged; only these are attacked."""
    adaptive: int
    """Of those, the ones that are right or flagged under every adaptive attack."""
    adaptive_interval: Interval
    """Exact 95 % interval of ``adaptive / n``."""
    unaware: int
    """The same under every non-adaptive attack."""
    unaware_interval: Interval
    detected: tuple[int, ...]
    """Adversarial examples of each non-adaptive attack that are flagged."""
    stages: tuple[Adaptive, ...]


class DetectionResult(ConfiguredResult):
    """One detector in front of one classifier."""

    command = "detector-eval"
    schema_name: Literal["advkit/detection"] = Field("advkit/detection", alias="schema")
    model: str
    model_hash: str
    detector: str
    detector_hash: str
    threat: ThreatFacts
    data: DataFacts
    """The attacked images."""
    held: DataFacts
    """The images that thresholds were fixed on."""
    n: int
    clean_correct: int
    """Judged images that the classifier gets right, without a detector."""
    bare: int
    """Of those, the ones that no attack breaks: robust accuracy without a detector."""
    attacks: tuple[NonAdaptive, ...]
    points: tuple[OperatingPoint, ...]

    def summary(self) -> str:
        """One line for people."""
        point = self.points[0]
        return (
            f"at a false-positive rate of {100 * point.rate:g} %, {accuracy(point.adaptive, self.n)} of "
            f"{self.n:,} images are right or flagged under adaptive attacks, "
            f"{accuracy(point.unaware, self.n)} under non-adaptive ones; without a detector "
            f"{accuracy(self.bare, self.n)}"
        )


class Recovered(StrictModel):
    """A non-adaptive attack, whose adversarial examples are then purified."""

    name: str
    attack: str
    fooled: int
    """Images for which it found an adversarial example."""
    recovered: int
    """Of those, the ones that are classified correctly after purification."""


class AdaptiveEvaluation(StrictModel):
    """Adaptive attacks: on purifier and classifier together, with one kind of gradient for the purifier."""

    way: str
    left: int
    """Images that are right after all of them."""
    stages: tuple[Stage, ...]
    checks: tuple[Check, ...]
    """Sanity checks of that number."""


class PurificationResult(ConfiguredResult):
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
    """Gradient attacks that took a single sample of a random defence in each step."""
    threat: ThreatFacts
    data: DataFacts
    n: int
    clean_correct: int
    """Images that the bare classifier gets right."""
    purified_correct: int
    """Images that are right after purification, before any attack."""
    bare: int
    """Images that the bare classifier gets right under the same attacks."""
    adaptive: int
    """Images that are right under all attacks, adaptive and non-adaptive."""
    adaptive_interval: Interval
    """Exact 95 % interval of ``adaptive / n``."""
    unaware: int
    """Images that are right under the non-adaptive attacks."""
    unaware_interval: Interval
    attacks: tuple[Recovered, ...]
    ways: tuple[AdaptiveEvaluation, ...]

    def summary(self) -> str:
        """One line for people."""
        return (
            f"behind {self.defence}, {accuracy(self.adaptive, self.n)} of {self.n:,} images are right under "
            f"adaptive attacks, {accuracy(self.unaware, self.n)} under non-adaptive ones; without a defence "
            f"{accuracy(self.bare, self.n)}"
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons why the true robust accuracy may be lower than the first number."""
        doubts = [
            f"{self.defence} draws random numbers, and {name} takes a single sample in each step; average "
            f"the gradient over several (EOT): {_averaging(name)}"
            for name in self.unaveraged
        ]
        if self.adaptive:
            doubts += [
                f"{one.way}: {check.detail}" + (f"; {check.remedy}" if check.remedy else "")
                for one in self.ways
                for check in one.checks
                if check.verdict == "doubt"
            ]
        return tuple(doubts)


def _averaging(stage: str) -> str:
    """The options that let a stage average its gradient; one of an ensemble has no parameters of its own."""
    if " (" in stage:
        return "--attack autoattack --set parameters.autoattack.version=rand"
    return f"--set parameters.{stage}.samples=10"
