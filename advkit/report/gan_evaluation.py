"""The outcome of an evaluation of generators."""

from __future__ import annotations

import shlex
from pathlib import Path

from advkit.gan.evaluation.result import GRID_FILE, NEAREST_FILE, GanEvaluationResult, Judged
from advkit.report.outcome import Outcome, Picture, Table

SHOWN = 10
"""Number of classes up to which each one's share is shown."""
_BETTER = {"lower": "better: lower", "higher": "better: higher", "floor": "best: the floor"}


def outcome(result: GanEvaluationResult, folder: Path) -> Outcome:
    """The outcome, for one generator or several."""
    several = len(result.generators) > 1
    names = [one.name for one in result.generators]
    sentences = [
        f"n = {result.n:,} generated images each, against as many test images of {result.real.name}. The "
        "floor is the same figure of real training images, that of a perfect generator.",
        f"Judge {result.judge[:12]}: its FID and KID compare only with those of the same judge and n.",
        *(
            []
            if (right := result.judge_accuracy) is None
            else [f"It classifies {right:.1%} of the real images correctly."]
        ),
        *(f"Skipped: {name}, since {reason}." for name, reason in result.skipped.items()),
    ]
    tables = [_figures(result), _networks(result)]
    if len(result.class_names) <= SHOWN and any(one.histogram for one in result.generators):
        tables.append(_classes(result))
    pictures = []
    for one in result.generators:
        own = folder / one.folder
        pictures += [
            Picture(f"images of {one.name}", own / GRID_FILE, "The first samples, not chosen."),
            Picture(
                f"nearest of {one.name}",
                own / NEAREST_FILE,
                "Above, the samples that are nearest to a training image; below, those images.",
            ),
        ]
    pictures.append(Picture("real images", folder / "real.png", f"Of {result.real.name}'s test split."))
    return Outcome(
        title=f"comparison of generators: {', '.join(names)}" if several else f"evaluation of {names[0]}",
        sentences=tuple(sentences),
        tables=tuple(tables),
        pictures=tuple(pictures),
        files=(folder,),
        next=tuple(
            f"advkit gan-sample --model {shlex.quote(name)} --n 400 --out more.png" for name in names[:1]
        ),
        result=result.as_values(),
    )


def _figures(result: GanEvaluationResult) -> Table:
    rows = [
        (
            figure.name,
            *(figure.written(one.values.get(figure.key)) for one in result.generators),
            figure.written(figure.floor),
            _BETTER[figure.better],
        )
        for figure in result.figures
    ]
    named = [one.name for one in result.generators] if len(result.generators) > 1 else ["generated"]
    return Table(f"figures, n = {result.n:,}", ("", *named, "floor", ""), tuple(rows))


def _networks(result: GanEvaluationResult) -> Table:
    rows = [
        (
            one.name,
            one.architecture,
            f"{one.parameters:,}",
            "-" if one.images_seen is None else f"{one.images_seen:,}",
            "-" if one.training_seconds is None else f"{one.training_seconds / 60:.1f} min",
        )
        for one in result.generators
    ]
    columns = ("model", "network", "parameters", "images seen", "trained for")
    return Table("networks", columns, tuple(rows))


def _classes(result: GanEvaluationResult) -> Table:
    def share(one: Judged, index: int) -> str:
        return f"{one.histogram[index]:.1%}".replace("%", " %") if one.histogram else "-"

    rows = [
        (
            name,
            *(share(one, index) for one in result.generators),
            f"{result.real_histogram[index]:.1%}".replace("%", " %"),
        )
        for index, name in enumerate(result.class_names)
    ]
    named = [one.name for one in result.generators] if len(result.generators) > 1 else ["generated"]
    return Table("classes predicted by the judge", ("class", *named, "real"), tuple(rows))
