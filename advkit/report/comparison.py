"""The outcome of ``compare``, from its result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advkit.core.stats import accuracy
from advkit.evaluation.comparison.compare import Source
from advkit.evaluation.comparison.result import ComparisonResult, Difference
from advkit.evaluation.corruptions.result import CorruptionVerdict
from advkit.evaluation.ledger import images_of, read_image
from advkit.evaluation.result import Verdict
from advkit.report.charts import Bar
from advkit.report.evaluation import EXAMPLES, worst
from advkit.report.outcome import Outcome, Picture, Table
from advkit.report.plots import write_images
from advkit.verify.certification.result import CertifiedVerdict

COLOURS = {"clean": "grey", "robust": "blue", "certified": "green", "corrupted": "amber"}


def comparison(result: ComparisonResult, pictures: tuple[Picture, ...], folder: Path) -> Outcome:
    """The outcome of ``advkit compare``."""
    names = tuple(model.name for model in result.models)
    doubted = [model.name for model in result.models if model.trusted is False]
    warning = f"Do not decide by this yet: checks doubt {', '.join(doubted)}." if doubted else ""
    lost = tuple(
        (name, f"{len(only):,}", ", ".join(str(image.id) for image in only[:20]))
        for name, only in ((name, result.lost(place)) for place, name in enumerate(names))
    )
    accuracies = tuple(f"{measure} accuracy [95 % interval]" for measure in result.measures)
    upper = "A robust accuracy is an upper bound: the comparison holds for these attacks."
    return Outcome(
        title=f"comparison of {' and '.join(names)}",
        sentences=(
            *(f"{one.text[0].upper()}{one.text[1:]}." for one in result.deciding),
            *([upper] if "robust" in result.measures else []),
            *([warning] if warning else []),
        ),
        bars=tuple(
            Bar(
                f"{one.name}: {measure}",
                ((share.correct / share.n, COLOURS[measure]),),
                share.interval,
                share.text,
            )
            for measure in result.measures
            for place, one in enumerate(result.models)
            for share in [result.share(place, measure)]
        ),
        warning=warning,
        tables=(
            Table(
                f"{result.data} {result.split}, {result.under}, n = {result.n:,}",
                ("model", *accuracies),
                tuple(result.rows()),
            ),
            Table(
                "differences, paired by image",
                (
                    "measure",
                    "models",
                    "points [95 % interval]",
                    "p" if result.threat is None else "McNemar's p",
                    "both",
                    "only first",
                    "only second",
                ),
                tuple(map(_difference, result.differences)),
            ),
            Table(f"images that one alone loses ({result.decisive})", ("model", "images", "ids"), lost),
            *([_by_class(result, names)] if result.classes else []),
            *_by_attack(result, names),
        ),
        pictures=pictures,
        files=(folder,),
        stored=result,
    )


def _difference(one: Difference) -> tuple[str, ...]:
    low, high = one.interval
    return (
        one.measure,
        f"{one.second} - {one.first}",
        f"{100 * one.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
        f"{one.p_value:.3g}",
        f"{one.both:,}",
        f"{one.only_first:,}",
        f"{one.only_second:,}",
    )


def _by_class(result: ComparisonResult, names: tuple[str, ...]) -> Table:
    rows = [
        (
            min(one.correct) / one.n,
            (one.name, f"{one.n:,}", *(accuracy(correct, one.n) for correct in one.correct)),
        )
        for one in result.classes
    ]
    shown, title = worst(rows)
    return Table(f"{result.decisive} accuracy {title}", ("class", "n", *names), tuple(shown))


def _by_attack(result: ComparisonResult, names: tuple[str, ...]) -> tuple[Table, ...]:
    rows = tuple(
        (one.name, *(f"{count:,}" for count in one.broken)) for one in result.attacks if any(one.broken)
    )
    title = ("images broken by attack", "attack")
    if result.threat is None:
        title = (f"errors by corruption, of {result.n:,} images in each severity", "corruption")
    return (Table(title[0], (title[1], *names), rows),) if rows else ()


def pictures(folder: Path, result: ComparisonResult, sources: Sequence[Source]) -> tuple[Picture, ...]:
    """For each model adversarial images that it alone loses, at most eight."""
    drawn = [_lost(folder, result, sources[place], place) for place in range(len(sources))]
    return tuple(picture for picture in drawn if picture is not None)


def _lost(folder: Path, result: ComparisonResult, source: Source, place: int) -> Picture | None:
    """Where the run of that model has kept its adversarial images."""
    shown = [image for image in result.lost(place) if image.status[place] == "broken"][:EXAMPLES]
    card, run = source.result.card, source.path
    if run is None or not run.is_dir() or card is None or not shown or not images_of(run).exists():
        return None
    import torch

    verdicts: Sequence[Verdict | CertifiedVerdict | CorruptionVerdict] = source.result.verdicts
    rows = {verdict.id: row for row, verdict in enumerate(verdicts)}
    x = torch.stack([read_image(images_of(run), rows[image.id], card.shape) for image in shown])
    name, path = result.models[place].name, folder / f"lost-{place + 1}.png"
    named = {one.label: one.name for one in result.classes}
    notes = [f"id {image.id}\n{image.attack[place]}" for image in shown]
    write_images(path, [x], [named[image.label] for image in shown], notes=notes)
    caption = f"Adversarial images that only {name} loses: true class, id, and the attack that found them."
    return Picture(f"only {name}", path, caption)
