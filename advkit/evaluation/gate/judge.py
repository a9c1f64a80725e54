"""Judging a result by a requirement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from advkit.core.errors import ConfigError
from advkit.core.stats import clopper_pearson, mean_interval, paired_difference
from advkit.data.classes import class_name
from advkit.evaluation.comparison.compare import Source, compared
from advkit.evaluation.corruptions.measure import refuse_others
from advkit.evaluation.corruptions.result import CorruptionResult
from advkit.evaluation.gate.result import Finding
from advkit.evaluation.gate.settings import Requirement
from advkit.evaluation.result import EvaluationResult


def judge(requirement: Requirement, source: Source, baseline: Source | None = None) -> tuple[Finding, ...]:
    """What a requirement asks for, and what the result reaches.

    Args:
        source: an evaluation of the model, or its accuracy under corruptions, as the requirement asks.
        baseline: the same of the earlier model, if the requirement names one.

    Raises:
        ConfigError: the baseline is not comparable.
    """
    result = source.result
    if baseline is not None:
        refuse_other_kind(requirement, baseline, result.command)
    if isinstance(result, CorruptionResult):
        return (
            *_corrupted(requirement, result),
            *(_corrupted_not_worse(requirement, baseline, result) if baseline is not None else ()),
        )
    assert isinstance(result, EvaluationResult)
    return (
        *_accuracies(requirement, result),
        *_worst_class(requirement, result),
        *(_not_worse(requirement, baseline, source) if baseline is not None else ()),
        *_trust(requirement, result),
    )


def refuse_other_kind(requirement: Requirement, baseline: Source, command: str) -> None:
    """Raises a `ConfigError` for a baseline that is no run of the command that measures the requirement."""
    if baseline.result.command != command:
        raise ConfigError(
            f"{baseline.called}, the baseline of {requirement.name!r}, is a run of `advkit "
            f"{baseline.result.command}`; name one of `advkit {command}`",
            code="not-comparable",
        )


def not_worse(only_baseline: int, only_new: int, n: int, points: float) -> tuple[bool, float]:
    """Whether, with 95 % confidence, the new share is not lower by more than ``points`` hundredths.

    Args:
        only_baseline: images that only the baseline classifies under attack.
        only_new: images that only the new model does.

    Returns:
        The answer, and the lower 95 % limit of the difference, as a fraction.
    """
    low = paired_difference(only_baseline, only_new, n, 0.9).low  # one-sided, so 5 % on this side
    return low >= -points / 100, low


def _accuracies(requirement: Requirement, result: EvaluationResult) -> Iterator[Finding]:
    counts = {
        "clean": result.clean_correct,
        "robust": result.robust_correct,
        "certified": result.certified_correct,
    }
    for bar, count in counts.items():
        needed = getattr(requirement, bar)
        if needed is not None:
            assert count is not None
            value, what = _value(requirement, count, result.n)
            yield _finding(requirement, bar, value, needed, f"{bar} accuracy{what}")


def _corrupted(requirement: Requirement, result: CorruptionResult) -> Iterator[Finding]:
    if requirement.clean is not None:
        value, what = _value(requirement, result.clean_correct, result.n)
        yield _finding(requirement, "clean", value, requirement.clean, f"clean accuracy{what}")
    assert requirement.corrupted is not None
    value, said = result.mean_accuracy, ""
    if requirement.of == "interval":
        value, said = result.interval.low, "lower end of the 95 % interval, "
    what = f"mean accuracy under {len(result.corruptions)} corruptions ({said}n = {result.n:,})"
    yield _finding(requirement, "corrupted", value, requirement.corrupted, what)


def _corrupted_not_worse(
    requirement: Requirement, baseline: Source, result: CorruptionResult
) -> Iterator[Finding]:
    earlier = baseline.result
    assert isinstance(earlier, CorruptionResult)
    refuse_others(result, earlier)
    apart = [new - old for new, old in zip(result.scores, earlier.scores, strict=True)]
    found = mean_interval(apart, -1.0, 1.0, 0.9)  # one-sided, so 5 % on this side
    yield _at_most_lost(requirement, baseline, found.mean, found.interval.low, f"n = {result.n:,}")


def _at_most_lost(
    requirement: Requirement, baseline: Source, difference: float, low: float, counts: str
) -> Finding:
    return Finding(
        requirement=requirement.name,
        bar="baseline",
        passed=low >= -requirement.points / 100,
        value=low,
        needed=-requirement.points / 100,
        detail=f"{100 * difference:+.1f} points from {baseline.called}, with 95 % confidence at least "
        f"{100 * low:+.1f}, needed {-requirement.points:+.1f} ({counts})",
    )


def _worst_class(requirement: Requirement, result: EvaluationResult) -> Iterator[Finding]:
    if (needed := requirement.worst_class) is None:
        return
    fine: dict[int, list[bool]] = {}
    for verdict in result.verdicts:
        fine.setdefault(verdict.label, []).append(verdict.status in ("robust", "certified"))
    values = {label: _value(requirement, sum(each), len(each)) for label, each in fine.items()}
    label = min(values, key=lambda one: (values[one][0], one))
    value, what = values[label]
    names = result.card.labels if result.card else ()
    name = class_name(label, names)
    lacking = (result.card.classes or 0) - len(values) if result.card else 0
    if lacking > 0:
        what += f", without {lacking} of {len(values) + lacking} classes, which have no image,"
    yield _finding(requirement, "worst_class", value, needed, f"robust accuracy of class {name}{what}")


def _value(requirement: Requirement, count: int, n: int) -> tuple[float, str]:
    if requirement.of == "interval":
        return clopper_pearson(count, n).low, f" (lower end of the 95 % interval, n = {n:,})"
    return count / n, f" (n = {n:,})"


def _finding(requirement: Requirement, bar: Any, value: float, needed: float, what: str) -> Finding:
    return Finding(
        requirement=requirement.name,
        bar=bar,
        passed=value >= needed,
        value=value,
        needed=needed,
        detail=f"{what} {100 * value:.2f} %, needed {100 * needed:.2f} %",
    )


def _not_worse(requirement: Requirement, baseline: Source, source: Source) -> Iterator[Finding]:
    found = compared([baseline, source])
    (one,) = (each for each in found.differences if each.measure == "robust")
    _, low = not_worse(one.only_first, one.only_second, found.n, requirement.points)
    counts = f"n = {found.n:,}, lost {one.only_first:,}, gained {one.only_second:,}"
    counts = "; ".join((counts, *found.notes))
    yield _at_most_lost(requirement, baseline, one.difference, low, counts)


def _trust(requirement: Requirement, result: EvaluationResult) -> Iterator[Finding]:
    doubts = [c for c in result.checks if c.verdict == "doubt" and c.name not in requirement.accept_doubt]
    said = "; ".join(f"{check.name}: {check.detail}" for check in doubts)
    yield Finding(
        requirement=requirement.name,
        bar="trust",
        passed=not doubts,
        detail=said or (result.trust if result.trusted else "its doubts are accepted"),
    )
