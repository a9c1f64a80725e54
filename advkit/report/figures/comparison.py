"""The picture of a comparison."""

from __future__ import annotations

from pathlib import Path

from advkit.evaluation.comparison.result import ComparisonResult
from advkit.report import plots

COLOURS = {"clean": plots.GREY, "robust": plots.BLUE, "certified": plots.RED, "corrupted": plots.BLUE}


def write_bars(path: Path, result: ComparisonResult) -> None:
    """A PNG of each measure of each model, as a bar with its exact 95 % interval."""
    models, measures = result.models, result.measures
    figure, axis = plots.figure((6.5, 1.0 + 0.3 * len(models) * len(measures)))
    for row, measure in enumerate(measures):
        shares = [result.share(place, measure) for place in range(len(models))]
        places = [place * (len(measures) + 1) + row for place in range(len(models))]
        values = [100 * share.correct / share.n for share in shares]
        below = [value - 100 * share.interval.low for value, share in zip(values, shares, strict=True)]
        above = [100 * share.interval.high - value for value, share in zip(values, shares, strict=True)]
        axis.barh(places, values, 0.8, color=COLOURS[measure], alpha=0.75, label=measure)
        axis.errorbar(values, places, xerr=[below, above], fmt="none", ecolor="black", capsize=3)
    middle = (len(measures) - 1) / 2
    ticks = [place * (len(measures) + 1) + middle for place in range(len(models))]
    axis.set_yticks(ticks, [model.name for model in models])
    axis.invert_yaxis()
    axis.set(xlim=(0, 101), xlabel="accuracy in %")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(measures), fontsize=9, frameon=False)
    plots.save(figure, path)
