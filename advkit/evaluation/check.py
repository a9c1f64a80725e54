"""Can this number be trusted? What a check is, and how all of them are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from advkit.core.progress import Task
from advkit.core.registry import Registry
from advkit.evaluation import result

if TYPE_CHECKING:
    from advkit.evaluation.evidence import Evidence


@dataclass(frozen=True)
class Remedy:
    """What to do about a doubt."""

    text: str
    """For people."""
    flags: str = ""
    """Options of ``advkit attack`` that do it, if there are any."""

    def __str__(self) -> str:
        return f"{self.text}: {self.flags}" if self.flags else self.text


@dataclass(frozen=True)
class Doubt:
    """A reason not to believe the number."""

    detail: str
    """What was seen, with how many images were looked at."""
    remedy: Remedy


Look = Callable[["Evidence"], "Doubt | str | None"]
"""Says a doubt, or what was seen where there is none, or None where the answer could change nothing."""

CHECKS: Registry[Look] = Registry("check", "advkit.evaluation.checks")

CAUSE, BLIND, SYMPTOM = 1, 2, 3
"""How near a doubt is to what is wrong: the cause itself, attacks that could not work, and what follows."""


def check(name: str, *, rank: int, summary: str, source: str) -> Callable[[Look], Look]:
    """Decorator that registers a check under ``name``; doubts of a lower ``rank`` are told first."""
    return CHECKS.register(name, summary=summary, source=source, rank=rank)


def ask_all(evidence: Evidence, task: Task) -> tuple[result.Check, ...]:
    """What every check says, doubts first and of these the causes first."""
    found = []
    for entry in sorted(CHECKS, key=lambda entry: (entry.facts["rank"], entry.name)):
        said = entry.thing(evidence)
        task.advance()
        if isinstance(said, Doubt):
            remedy = {"remedy": str(said.remedy), "flags": said.remedy.flags}
            found.append(result.Check(name=entry.name, verdict="doubt", detail=said.detail, **remedy))
        elif said is not None:
            found.append(result.Check(name=entry.name, verdict="ok", detail=said))
    return tuple(sorted(found, key=lambda check: check.verdict != "doubt"))
