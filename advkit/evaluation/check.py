"""Sanity checks of a robust accuracy: their interface, and how they are run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from advkit.core.progress import Progress
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
    """Options of ``advkit attack`` for it, if there are any."""

    def __str__(self) -> str:
        return f"{self.text}: {self.flags}" if self.flags else self.text


@dataclass(frozen=True)
class Doubt:
    """A reason not to trust the robust accuracy."""

    detail: str
    """The observation, with the number of images."""
    remedy: Remedy


Look = Callable[["Evidence"], "Doubt | str | None"]
"""Returns a doubt; a description of what was observed if there is none; or None if it does not apply."""

CHECKS: Registry[Look] = Registry("check", "advkit.evaluation.checks")

CAUSE, BLIND, SYMPTOM = 1, 2, 3
"""Rank of a doubt: a cause (such as masked gradients), an ineffective attack, or a symptom."""


def check(
    name: str,
    *,
    rank: int,
    summary: str,
    source: str,
    verdicts_only: bool = False,
    searches: tuple[str, ...] = (),
) -> Callable[[Look], Look]:
    """Decorator that registers a check under ``name``; doubts of a lower ``rank`` are reported first.

    One that reads ``verdicts_only`` is made on black boxes, too: it costs no queries. ``searches`` are the
    names of those `Evidence.search` inside the threat model, the strongest last: what they break counts after
    `cascade` (`advkit.evaluation.broken_in_checks`).
    """
    facts: dict[str, Any] = {"rank": rank, "verdicts_only": verdicts_only, "searches": searches}
    return CHECKS.register(name, summary=summary, source=source, **facts)


def run_checks(evidence: Evidence, progress: Progress) -> tuple[result.Check, ...]:
    """Results of all checks: doubts first, sorted by rank."""
    found, entries = [], sorted(CHECKS, key=lambda entry: (entry.facts["rank"], entry.name))
    with progress.task("running sanity checks", len(entries), unit="check") as task:
        for entry in entries:
            inner = evidence.box is not None and not entry.facts["verdicts_only"]
            answer = None if inner else entry.thing(evidence)
            task.advance()
            if isinstance(answer, Doubt):
                remedy = {"remedy": str(answer.remedy), "flags": answer.remedy.flags}
                found.append(result.Check(name=entry.name, verdict="doubt", detail=answer.detail, **remedy))
            elif answer is not None:
                found.append(result.Check(name=entry.name, verdict="ok", detail=answer))
    return tuple(sorted(found, key=lambda check: check.verdict != "doubt"))
