"""Comparing results image by image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advkit.core.errors import ConfigError, DataError
from advkit.core.files import json_text
from advkit.core.run_list import began_with, find, read
from advkit.data.classes import class_name
from advkit.evaluation.broken_in_checks import PREFIX
from advkit.evaluation.comparison.result import (
    MEASURES,
    Answers,
    ByAttack,
    ByClass,
    Compared,
    ComparedImage,
    ComparisonResult,
    Difference,
    Measure,
)
from advkit.evaluation.corruptions.measure import refuse_others
from advkit.evaluation.corruptions.result import CorruptionResult
from advkit.evaluation.missing import SAMPLE
from advkit.evaluation.result import EvaluationResult
from advkit.verify.certification.result import CertificationResult

Measured = EvaluationResult | CertificationResult | CorruptionResult


@dataclass(frozen=True)
class Source:
    """One result to compare."""

    result: Measured
    path: Path | None = None
    """The run folder or file that holds it."""
    name: str = ""
    """Of its model."""
    plan: dict[str, Any] | None = None
    """What its run folder, if it has one, says of the attacks beyond what the result does."""

    @classmethod
    def open(cls, run: Any) -> Source:
        """A result, a `Run`, its number, or its path: of ``attack``, ``certify`` or ``corrupt``.

        Raises:
            ConfigError: there is no such run.
            DataError: it holds no verdicts of one of these, or is damaged.
        """
        if isinstance(run, Measured):
            return cls(run, None, run.card.architecture if run.card else "")
        if isinstance(folder := getattr(run, "folder", None), Path):
            run = folder
        path = find(run)
        folder = path if path.is_dir() else path.parent
        result, row = _load(path), read(folder)
        if row.state == "damaged":
            return cls(result, path, path.stem)
        asked = None
        if (plan := began_with(folder).get("plan of attack")) is not None:
            asked = {key: plan.get(key) for key in ("stages", "budget")}
            asked["complete"] = plan.get("certify") == "complete"  # other proofs break no image
        return cls(result, path, row.model, asked)

    @property
    def called(self) -> str:
        """For messages."""
        return str(self.path or self.name or "a result")

    @property
    def digest(self) -> str:
        """SHA-256 of the result, for runs that begin with it."""
        return hashlib.sha256(self.result.to_json().encode()).hexdigest()


def _load(path: Path) -> Measured:
    faults = []
    for kind in (EvaluationResult, CertificationResult, CorruptionResult):
        try:
            return kind.load(path)
        except DataError as fault:
            faults.append(str(fault))
    if path.suffix != ".json" and path.is_file():
        raise DataError(f"{path} is no run; name models as in `advkit compare --model A,B`")
    raise DataError(f"{path} has no verdicts to compare; {faults[0]}")


def compare(*runs: Any) -> ComparisonResult:
    """Two or more models, image by image: which is more robust, by how much, and whether that can be chance.

    Every model is compared with the first. The results must be on the same images, under the same threat
    model and after the same attacks; of results on parts of the same data the images that all have count, and
    a note says so.

    Args:
        *runs: results of `advkit.evaluate` or `advkit.certify`, `Run`s, also of `advkit.corrupt`, or numbers
            or paths of runs.

    Returns:
        Accuracies with exact intervals; their differences with paired intervals (Tango 1998) and McNemar's
        exact p; the verdicts of all models on each image.

    Raises:
        ConfigError: fewer than two, no such run, or results that cannot be compared, with the code
            ``not-comparable``.
        DataError: a file holds no such result.

    Example:
        >>> import advkit
        >>> threat = advkit.Threat("linf", 0.1)
        >>> runs = [advkit.evaluate(f, "digits", threat) for f in ("a.pt", "b.pt")]  # doctest: +SKIP
        >>> print(advkit.compare(*runs).deciding[0].p_value)  # doctest: +SKIP
    """
    return compared([run if isinstance(run, Source) else Source.open(run) for run in runs])


def compared(sources: Sequence[Source]) -> ComparisonResult:
    """As `compare`, of results that were opened.

    Raises:
        ConfigError: as there.
    """
    if len(sources) < 2:
        raise ConfigError("a comparison needs two results or more; name another run")
    first, names = sources[0], _names(sources)
    notes = [note for other in sources[1:] for note in _refuse(first, other)]
    tables = [{verdict.id: verdict for verdict in source.result.verdicts} for source in sources]
    ids = [id for id in tables[0] if all(id in table for table in tables[1:])]
    if not ids:
        raise _refused(first, sources[-1], "they have no image in common")
    for source, table in zip(sources[1:], tables[1:], strict=True):
        if any(table[id].label != tables[0][id].label for id in ids):
            raise _refused(first, source, "the same images have other labels")
    if any(len(ids) < len(table) for table in tables):
        counts = ", ".join(f"{len(table)} of {name}" for table, name in zip(tables, names, strict=True))
        notes.append(f"{len(ids)} images are compared, those that all have ({counts})")
    images = tuple(
        ComparedImage(
            id=id,
            label=tables[0][id].label,
            status=tuple(table[id].status for table in tables),
            attack=tuple(getattr(table[id], "attack", None) for table in tables),
        )
        for id in ids
    )
    measures = [measure for measure in MEASURES if all(_has(source.result, measure) for source in sources)]
    decisive = measures[1] if len(measures) > 1 else measures[0]
    good: dict[Measure, list[Answers]] = {
        measure: [
            [_answers(source.result, table[id], measure) for id in ids]
            for source, table in zip(sources, tables, strict=True)
        ]
        for measure in measures
    }
    models = tuple(
        Compared(
            name=name,
            source=str(source.path or ""),
            model_hash=source.result.model_hash,
            trusted=source.result.trusted if isinstance(source.result, EvaluationResult) else None,
            correct={measure: sum(map(sum, good[measure][place])) for measure in measures},
            corrupted_interval=source.result.interval if "corrupted" in measures else None,
        )
        for place, (name, source) in enumerate(zip(names, sources, strict=True))
    )
    for model in models:
        if model.trusted is False:
            notes.append(f"checks doubt the robust accuracy of {model.name}: see its own report first")
    if len(sources) > 2:
        notes.append(f"{len(sources) - 1} comparisons with {names[0]}: each interval and p is of one of them")
    return ComparisonResult(
        data=first.result.data.name,
        split=first.result.data.split,
        n=len(ids),
        threat=getattr(first.result, "threat", None),
        answers=len(first.result.rows) if isinstance(first.result, CorruptionResult) else 1,
        decisive=decisive,
        models=models,
        differences=tuple(
            Difference.of((names[0], names[place]), measure, good[measure][0], good[measure][place])
            for measure in measures
            for place in range(1, len(sources))
        ),
        classes=_classes(first.result, images, good[decisive]),
        attacks=_attacks(sources, images),
        images=images,
        notes=tuple(notes),
    )


def _names(sources: Sequence[Source]) -> list[str]:
    """Of the models; where two are alike, or unknown, with their run or place."""
    plain = [source.name for source in sources]
    names = []
    for place, source in enumerate(sources, 1):
        where = source.path.name if source.path and source.path.name != "result.json" else f"model {place}"
        alike = not source.name or plain.count(source.name) > 1
        names.append(f"{source.name} ({where})".strip() if alike else source.name)
    return names if len(set(names)) == len(names) else [f"{name} {i}" for i, name in enumerate(names, 1)]


def _refuse(first: Source, other: Source) -> list[str]:
    """Raises a `ConfigError` for results that cannot be compared; what there is to note of those that can."""
    one, two = first.result, other.result
    if isinstance(one, CorruptionResult) or isinstance(two, CorruptionResult):
        if not (isinstance(one, CorruptionResult) and isinstance(two, CorruptionResult)):
            raise _refused(first, other, "only one is of corruptions")
        refuse_others(one, two)
        return []
    if (one.data.name, one.data.split) != (two.data.name, two.data.split):
        data = f"{one.data.name} {one.data.split} and {two.data.name} {two.data.split}"
        raise _refused(first, other, f"they are on other images ({data})")
    alike = [verdict.id for verdict in one.verdicts] == [verdict.id for verdict in two.verdicts]
    if alike and one.data.fingerprint != two.data.fingerprint:
        raise _refused(first, other, "the images of the same name are others")
    if one.threat != two.threat:
        threats = " and ".join(f"{each.threat.norm} eps {each.threat.eps:g}" for each in (one, two))
        raise _refused(first, other, f"the threat models are others ({threats})")
    if not (isinstance(one, EvaluationResult) and isinstance(two, EvaluationResult)):
        return []
    if one.eight_bit != two.eight_bit:
        raise _refused(first, other, "only one has adversarial images of 8 bits")
    if (one.surrogate_hash is None) != (two.surrogate_hash is None):
        raise _refused(first, other, "one of them is a transfer attack, which is weaker")
    # Without those of the checks, which depend on the survivors.
    stages = [[s for s in each.stages if not s.name.startswith((SAMPLE, PREFIX))] for each in (one, two)]
    plans = [json_text([[s.name, s.attack, s.parameters] for s in each]) for each in stages]
    if plans[0] != plans[1]:
        lists = [{json_text([s.attack, s.parameters]) for s in each} for each in stages]
        weaker = (first, other)[lists[0] > lists[1]] if lists[0] > lists[1] or lists[0] < lists[1] else None
        what = f"the attacks on {weaker.called} are weaker" if weaker else "the attacks are others"
        listed = " and ".join(",".join(stage.name for stage in each) for each in stages)
        raise _refused(first, other, f"{what} ({listed})")
    if None not in (first.plan, other.plan) and first.plan != other.plan:
        why = "the attacks end at another budget or tolerance, or only one has complete verification"
        raise _refused(first, other, why)
    limits = [None if each.queries is None else each.queries.limit(each.n) for each in (one, two)]
    if limits[0] != limits[1]:
        queries = " and ".join("any number of" if limit is None else f"{limit:,}" for limit in limits)
        raise _refused(first, other, f"the attacks may ask {queries} queries about an image")
    notes = [] if one.seed == two.seed else [f"the seeds are {one.seed} and {two.seed}"]
    if one.surrogate_hash != two.surrogate_hash:
        notes.append("the attacks search on different surrogates")
    return notes


def _refused(first: Source, other: Source, why: str) -> ConfigError:
    return ConfigError(
        f"{first.called} and {other.called} cannot be compared: {why}; measure both with the same settings, "
        "as `advkit compare --model A --model B` does",
        code="not-comparable",
    )


def _has(result: Measured, measure: Measure) -> bool:
    if measure == "clean":
        return True
    if measure == "robust":
        return isinstance(result, EvaluationResult)
    if measure == "corrupted" or isinstance(result, CorruptionResult):
        return measure == "corrupted" and isinstance(result, CorruptionResult)
    return result.certified_correct is not None


def _answers(result: Measured, verdict: Any, measure: Measure) -> tuple[bool, ...]:
    """Whether the image counts; of corruptions, for each."""
    if measure == "corrupted" and isinstance(result, CorruptionResult):
        return tuple(row.severity not in verdict.wrong.get(row.corruption, ()) for row in result.rows)
    return (verdict.status in MEASURES[measure],)


def _classes(
    result: Measured, images: Sequence[ComparedImage], good: Sequence[Answers]
) -> tuple[ByClass, ...]:
    """None of corruptions, where an image counts several times."""
    if isinstance(result, CorruptionResult):
        return ()
    names = result.card.labels if result.card else ()
    labels = [image.label for image in images]
    return tuple(
        ByClass(
            label=label,
            name=class_name(label, names),
            n=labels.count(label),
            correct=tuple(
                sum(sum(fine) for fine, own in zip(each, labels, strict=True) if own == label)
                for each in good
            ),
        )
        for label in sorted(set(labels))
    )


def _attacks(sources: Sequence[Source], images: Sequence[ComparedImage]) -> tuple[ByAttack, ...]:
    """Images broken by each stage; of corruptions, the errors under each."""
    results = [source.result for source in sources]
    if isinstance(results[0], CorruptionResult):
        errors = [
            {
                name: sum(result.n - row.correct for row in result.rows if row.corruption == name)
                for name in result.corruptions
            }
            for result in results
            if isinstance(result, CorruptionResult)
        ]
        return tuple(ByAttack(name=name, broken=tuple(each[name] for each in errors)) for name in errors[0])
    stages = dict.fromkeys(
        stage.name for result in results if isinstance(result, EvaluationResult) for stage in result.stages
    )
    return tuple(
        ByAttack(
            name=name,
            broken=tuple(
                sum(image.attack[place] == name for image in images) for place in range(len(sources))
            ),
        )
        for name in stages
    )
