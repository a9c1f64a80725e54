"""What an evaluation found, as a versioned file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor

from advkit.config import StrictModel, validate
from advkit.errors import DataError
from advkit.models.card import DataFacts, ModelCard, ThreatFacts
from advkit.stats import Interval, accuracy

VERSION = 3
"""1 had no margins, and no names of stages other than their attacks; 2 did not know of 8 bits, nor of
remedies for doubts, and numbered the adversarial images."""


class Verdict(StrictModel):
    """What became of one image."""

    id: int
    """Its position in the split."""
    label: int
    status: Literal["misclassified", "broken", "robust"]
    """Wrong before any attack; wrong after one; right after all."""
    attack: str | None = None
    """The stage that broke it."""
    iteration: int = 0
    """Step at which it fell."""
    variant: int = 0
    """Start (or target) that broke it."""
    distance: float | None = None
    """From the original to the adversarial image, in the threat's norm."""
    margin: float | None = None
    """Largest margin at any allowed point that was tried, where it stands: how near it came to falling."""
    forwards: int = 0
    """Forward passes spent on it by all attacks."""
    backwards: int = 0


class Stage(StrictModel):
    """One attack, on the images that stood when it began."""

    name: str = ""
    """What the verdicts call it; the attack's name unless it is part of an ensemble."""
    attack: str
    parameters: dict[str, Any]
    """All of them, defaults too."""
    attacked: int
    """Images that it was tried on."""
    broken: int
    correct_after: int
    """Images still right when it ended."""
    forwards: int
    backwards: int

    @model_validator(mode="after")
    def _named(self) -> Stage:
        if not self.name:
            object.__setattr__(self, "name", self.attack)
        return self


class Check(StrictModel):
    """A reason to trust the number, or to doubt it."""

    name: str
    verdict: Literal["ok", "doubt"]
    detail: str
    """What was seen."""
    remedy: str = ""
    """What to do about a doubt."""

    @property
    def typed(self) -> str:
        """The options that a remedy ends with, to be typed after ``advkit attack``; empty if it has none."""
        _, _, last = self.remedy.rpartition(": ")
        return last if last.startswith("--") else ""


class EvaluationResult(StrictModel):
    """Clean and robust accuracy of one model under one threat model, with everything behind them.

    A robust accuracy is an upper bound: a stronger attack may find more.
    """

    schema_name: Literal["advkit/evaluation"] = Field("advkit/evaluation", alias="schema")
    version: int = VERSION
    status: Literal["complete", "partial"]
    """Partial: only a part of the split was asked for."""
    threat: ThreatFacts
    model_hash: str
    card: ModelCard | None
    data: DataFacts
    seed: int
    precision: str
    eight_bit: bool = False
    """Adversarial images are of 8-bit levels, so that a PNG file holds them exactly."""
    n: int
    clean_correct: int
    robust_correct: int
    stages: tuple[Stage, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    """What the loader found and assumed."""
    forwards: int
    backwards: int
    seconds: float
    """Of this process; a resumed run does not count what came before."""
    environment: dict[str, str]
    verdicts: tuple[Verdict, ...]
    clean_accuracy: float
    robust_accuracy: float
    clean_interval: Interval
    """Exact 95 % interval of the clean accuracy."""
    interval: Interval
    """Exact 95 % interval of the robust accuracy."""

    model_config = StrictModel.model_config | {"populate_by_name": True, "protected_namespaces": ()}
    _adversarial: Tensor | None = PrivateAttr(None)

    @property
    def adversarial(self) -> Tensor | None:
        """(n, C, H, W) float32: adversarial images, originals where there is none; None unless kept."""
        return self._adversarial

    def to_json(self) -> str:
        """The whole result as JSON text; `EvaluationResult.from_json` reads it back."""
        return self.model_dump_json(by_alias=True, indent=1)

    def as_values(self) -> dict[str, Any]:
        """The whole result as plain values, as in the JSON text."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_json(cls, text: str, where: str = "result") -> EvaluationResult:
        """Reads `to_json`'s text.

        Raises:
            DataError: it is no result, or one of a newer version.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{where} is not JSON ({error}); give a result.json of an evaluation") from error
        if not isinstance(values, dict) or values.get("schema") != "advkit/evaluation":
            raise DataError(f"{where} is no advkit evaluation; give a result.json of an evaluation")
        if values.get("version", 0) > VERSION:
            raise DataError(
                f"{where} was written by a newer advkit (version {values['version']} of the format, this one "
                f"reads {VERSION}); upgrade advkit to read it"
            )
        for verdict in values.get("verdicts", ()):
            verdict.pop("place", None)  # up to version 2
        return validate(cls, values, where)

    @classmethod
    def load(cls, path: Path | str) -> EvaluationResult:
        """Reads a ``result.json``, or the run folder that holds one."""
        path = Path(path)
        file = path / "result.json" if path.is_dir() else path
        if not file.exists():
            raise DataError(f"there is no result at {file}; give a run folder or a result.json")
        return cls.from_json(file.read_text(), str(file))

    def summary(self) -> str:
        """One line for people."""
        return (
            f"clean accuracy {accuracy(self.clean_correct, self.n)}, robust accuracy "
            f"{accuracy(self.robust_correct, self.n)} at {self.threat.norm} eps {self.threat.eps:.4g} "
            f"{'in 8 bits ' if self.eight_bit else ''}(n = {self.n}, {self.data.name} {self.data.split})"
        )

    @property
    def trusted(self) -> bool:
        """No check doubts the number."""
        return all(check.verdict == "ok" for check in self.checks)

    @property
    def trust(self) -> str:
        """One sentence: whether to believe the number, and if not, why and what to do."""
        if not self.trusted:
            doubts = [check for check in self.checks if check.verdict == "doubt"]
            first, more = doubts[0], len(doubts) - 1
            others = f" ({more} more {'check doubts' if more == 1 else 'checks doubt'} it)" if more else ""
            remedy = f"; {first.remedy}" if first.remedy else ""
            return f"Do not believe this number yet: {first.detail}{others}{remedy}."
        if self.robust_correct == 0:
            return "Believe this number: nothing stands, and the model itself confirmed every success."
        return (
            f"Believe this number as an upper bound: none of {len(self.checks)} checks found a reason for "
            "doubt, and a stronger attack could only lower it."
        )

    def __str__(self) -> str:
        return f"{self.summary()}\n{self.trust}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{stage.name}</td><td>{stage.broken} of {stage.attacked}</td>"
            f"<td>{accuracy(stage.correct_after, self.n)}</td></tr>"
            for stage in self.stages
        )
        return (
            f"<p>{self.summary()}</p><p>{self.trust}</p>"
            f"<table><tr><th>attack</th><th>broke</th><th>accuracy left</th></tr>{rows}</table>"
        )
