"""The result of a gate, as a versioned file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stored import SummarisedResult


class Finding(StrictModel):
    """One bar of one requirement."""

    requirement: str
    bar: Literal["clean", "robust", "certified", "worst_class", "corrupted", "baseline", "trust"]
    """Trust: whether no check doubts the number."""
    passed: bool
    value: float | None = None
    """What was reached, as a fraction; of a baseline the lower end of the difference."""
    needed: float | None = None
    """What had to be."""
    detail: str
    """In words."""


class GateResult(SummarisedResult):
    """What a policy requires, and what a model reaches."""

    command = "gate"

    schema_name: Literal["advkit/gate"] = Field("advkit/gate", alias="schema")
    model: str
    model_hash: str
    policy: tuple[str, ...]
    data: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The bars that were missed."""
        return tuple(one for one in self.findings if not one.passed)

    @property
    def passed(self) -> bool:
        """Whether all were reached."""
        return not self.failed

    @property
    def trusted(self) -> bool:
        """Whether no check doubts a number."""
        return all(one.bar != "trust" for one in self.failed)

    def summary(self) -> str:
        """One line for people."""
        count = f"{len(self.findings) - len(self.failed)} of {len(self.findings)} bars"
        missed = "; ".join(f"{one.requirement}: {one.detail}" for one in self.failed)
        return f"{'passed' if self.passed else 'failed'}, {count}{f' ({missed})' if missed else ''}"
