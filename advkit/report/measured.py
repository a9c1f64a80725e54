"""What finished runs measured, for pages about many of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from advkit.core import files
from advkit.core.errors import ConfigError, DataError
from advkit.core.run_list import RunRow, find, read
from advkit.core.runs import began
from advkit.core.stats import Interval, clopper_pearson, percent
from advkit.evaluation.comparison.result import ComparisonResult
from advkit.evaluation.corruptions.result import CorruptionResult
from advkit.evaluation.curve.result import SecurityCurve
from advkit.evaluation.result import EvaluationResult
from advkit.gan.evaluation.result import GanEvaluationResult
from advkit.models.card import Accuracy, ModelCard
from advkit.verify.certification.result import CertificationResult
from advkit.verify.smoothing.result import SmoothingResult

Alone = EvaluationResult | CertificationResult | SmoothingResult | SecurityCurve | CorruptionResult
KINDS: dict[str, type[Alone | ComparisonResult]] = {
    kind.command: kind
    for kind in (
        EvaluationResult,
        CertificationResult,
        SmoothingResult,
        SecurityCurve,
        CorruptionResult,
        ComparisonResult,
    )
}
"""The results that have accuracies, by command."""
ON_CARDS: dict[str, type[EvaluationResult | CertificationResult | GanEvaluationResult]] = {
    kind.command: kind for kind in (EvaluationResult, CertificationResult, GanEvaluationResult)
}
"""The results whose figures a card takes, by command."""
BOUNDS = {"robust": "at most", "certified": "at least"}
"""Accuracies that are bounds."""


@dataclass(frozen=True)
class Figure:
    """A share of images with its 95 % interval."""

    name: str
    """Of an accuracy: clean, robust, certified, smoothed or corrupted."""
    value: float
    interval: Interval
    under: str = ""
    """The threat model, or what takes its place; empty: none."""

    @property
    def called(self) -> str:
        """Which accuracy, and whether it is a bound."""
        bound = BOUNDS.get(self.name)
        return f"{self.name} accuracy{f', {bound}' if bound else ''}"

    @property
    def text(self) -> str:
        """In per cent."""
        return percent(self.value, self.interval)


@dataclass(frozen=True)
class Measured:
    """What a finished run says of one model; the verdicts are left out, so that many fit into memory."""

    row: RunRow
    digest: str
    """SHA-256 of its ``result.json``."""
    model_hash: str
    card: ModelCard | None
    """Of the model; a comparison has none."""
    data: str
    """Name and split."""
    n: int
    under: str
    """The threat model of its main figure, or what takes its place."""
    figures: tuple[Figure, ...]
    trusted: bool | None
    """None where there are no checks."""
    curve: tuple[tuple[float, float], ...] = ()
    """Of a security curve, the robust accuracy at some eps."""
    said: tuple[str, ...] = ()
    """What a reader has to know of the figures: doubts, notes, and what a comparison found."""
    fingerprint: str = ""
    """Of the images; a comparison says none."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions and machine."""
    seed: int | None = None
    """None where nothing is drawn, or by other runs."""

    @classmethod
    def of(cls, row: RunRow) -> list[Measured]:
        """What a run says: of a comparison one for each of its models, else one.

        Raises:
            DataError: it is damaged or not finished, or has no accuracies.
        """
        if row.state != "finished":
            why = f"no run folder, or damaged ({row.found})" if row.state == "damaged" else "not finished"
            raise DataError(f"{row.path} is {why}; `advkit runs` lists those that can be shown")
        if row.command not in KINDS:
            raise DataError(f"{row.path} has no accuracies; name runs of {', '.join(KINDS)}")
        file = row.path / "result.json"
        result = KINDS[row.command].load(file)
        config = began(row.path / "resolved.json")["config"]
        origin: dict[str, Any] = {
            "row": row,
            "digest": files.digest(files.read(file)),
            "environment": files.read_json(row.path / "env.json"),
            "seed": None if config.get("runs") else config.get("seed"),
        }
        if isinstance(result, ComparisonResult):
            return [_compared(result, place, origin) for place in range(len(result.models))]
        doubts = [check for check in getattr(result, "checks", ()) if check.verdict == "doubt"]
        under = _under(result)
        return [
            cls(
                **origin,
                model_hash=result.model_hash,
                card=result.card,
                data=f"{result.data.name} {result.data.split}",
                n=result.n,
                under=under,
                figures=tuple(_figures(result, under)),
                trusted=getattr(result, "trusted", None),
                fingerprint=result.data.fingerprint,
                curve=_curve(result) if isinstance(result, SecurityCurve) else (),
                said=(*(f"{check.name} doubts it: {check.detail}" for check in doubts), *result.notes),
            )
        ]

    @property
    def checks(self) -> str:
        """What the checks say of it, in a word."""
        return {True: "trusted", False: "doubted", None: ""}[self.trusted]

    @property
    def main(self) -> dict[str, Figure]:
        """By name, the figures under no threat and under that of the main figure."""
        return {figure.name: figure for figure in self.figures if figure.under in ("", self.under)}


def on_card(card: ModelCard, digest: str, runs: Iterable[str]) -> ModelCard:
    """A card with what runs of attack, certify and gan-eval have measured of its model.

    Of several runs under one threat model on the same images the closest bounds count.

    Args:
        runs: by number or path.

    Raises:
        ConfigError: a run of another model or command, or of eight-bit images.
        DataError: a run that is not finished, or damaged.
    """
    metrics, found = dict(card.metrics), {_kind(one): one for one in card.accuracies}
    for name in runs:
        row = read(path if (path := find(name)).is_dir() else path.parent)
        if row.command not in ON_CARDS:
            what = row.command or row.found
            raise ConfigError(f"{name} is no run of {', '.join(ON_CARDS)} ({what}); name one")
        result = ON_CARDS[row.command].load(row.path)
        if isinstance(result, GanEvaluationResult):
            measured = {one.hash: one.values for one in result.generators}
        else:
            measured = {result.model_hash: {}}
        if digest not in measured:
            raise ConfigError(
                f"run {name} is of another model, not of {digest[:12]}; name runs of this one",
                code="not-comparable",
            )
        metrics |= measured[digest]
        for one in () if isinstance(result, GanEvaluationResult) else _accuracies(result):
            other = found.setdefault(_kind(one), one)
            if (one.correct < other.correct) == (one.name == "robust"):
                found[_kind(one)] = one
    return card.model_copy(update={"metrics": metrics, "accuracies": tuple(found.values())})


def _kind(one: Accuracy) -> tuple[Any, ...]:
    return one.name, one.data.fingerprint, one.threat


def _accuracies(result: EvaluationResult | CertificationResult) -> Iterator[Accuracy]:
    if isinstance(result, EvaluationResult) and result.eight_bit:
        raise ConfigError("a robust accuracy on images of eight bits is not put on a card; name another run")
    yield Accuracy(name="clean", correct=result.clean_correct, data=result.data)
    if isinstance(result, EvaluationResult):
        doubts = tuple(check.name for check in result.checks if check.verdict == "doubt")
        robust = {"correct": result.robust_correct, "data": result.data, "threat": result.threat}
        yield Accuracy(name="robust", doubts=doubts, **robust)
    if (proved := result.certified_correct) is not None:
        yield Accuracy(name="certified", correct=proved, data=result.data, threat=result.threat)


def _compared(result: ComparisonResult, place: int, origin: Mapping[str, Any]) -> Measured:
    """What a comparison says of the model in this place."""
    model = result.models[place]
    shares = ((measure, result.share(place, measure)) for measure in result.measures)
    return Measured(
        **origin,
        model_hash=model.model_hash,
        card=None,
        data=f"{result.data} {result.split}",
        n=result.n,
        under=result.under,
        figures=tuple(
            Figure(
                measure, share.correct / share.n, share.interval, "" if measure == "clean" else result.under
            )
            for measure, share in shares
        ),
        trusted=model.trusted,
        said=(
            *(one.text for one in result.differences if model.name in (one.first, one.second)),
            *result.notes,
        ),
    )


def _under(result: Alone) -> str:
    if isinstance(result, EvaluationResult | CertificationResult):
        bits = ", 8 bits" if isinstance(result, EvaluationResult) and result.eight_bit else ""
        return f"{result.threat.norm} eps {result.threat.eps:.4g}{bits}"
    if isinstance(result, SmoothingResult):
        return f"l2 eps {result.sigma:.4g}, smoothed"
    if isinstance(result, SecurityCurve):
        return f"{result.norm} eps {result.class_eps:.4g}"
    return f"{len(result.rows)} corruptions of each image"


def _curve(result: SecurityCurve) -> tuple[tuple[float, float], ...]:
    return tuple((point.eps, point.robust_accuracy) for point in result.asked([0.0]).points)


def _figures(result: Alone, under: str) -> Iterator[Figure]:
    def share(name: str, correct: int, under: str = "") -> Figure:
        return Figure(name, correct / result.n, clopper_pearson(correct, result.n), under)

    clean = result.bare_correct if isinstance(result, SmoothingResult) else result.clean_correct
    yield share("clean", clean)
    if isinstance(result, CorruptionResult):
        yield Figure("corrupted", result.mean_accuracy, result.interval, under)
    elif isinstance(result, SmoothingResult):
        yield share("smoothed", result.right)
        if at := [point for point in result.points if point.radius == result.sigma]:
            yield share("certified", at[0].certified, under)
    elif isinstance(result, SecurityCurve):
        for point in result.asked([result.class_eps]).points:
            yield share("robust", point.robust_correct, f"{result.norm} eps {point.eps:.4g}")
    else:
        if isinstance(result, EvaluationResult):
            yield share("robust", result.robust_correct, under)
        if result.certified_correct is not None:
            yield share("certified", result.certified_correct, under)
