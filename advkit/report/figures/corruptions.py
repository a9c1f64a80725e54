"""Accuracy by severity, and a gallery of corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from advkit.core.stats import mean_interval
from advkit.evaluation.corruptions.result import CorruptionResult
from advkit.report import plots
from advkit.report.charts import Axis, Line, lines

COLUMNS = 5
"""Corruptions beside each other in a gallery."""


def severities(result: CorruptionResult) -> str:
    """The accuracy over severity: each corruption thin, their mean with its 95 % interval."""
    places = [0, *result.severities]
    clean = result.clean_correct / result.n
    each = [
        Line(name, [*zip(places, [clean, *values], strict=True)], "grey", thin=True)
        for name in result.corruptions
        for values in [[row.accuracy for row in result.rows if row.corruption == name]]
    ]
    means = [clean, *(_mean(result, severity) for severity in result.severities)]
    ends = [result.clean_interval, *(_interval(result, severity) for severity in result.severities)]
    band = [(place, low, high) for place, (low, high) in zip(places, ends, strict=True)]
    mean = Line("mean", [*zip(places, means, strict=True)], band=band)
    ticks = ((0.0, "clean"), *((float(severity), str(severity)) for severity in result.severities))
    return lines("accuracy by severity", [*each, mean], Axis("severity", 0.0, places[-1], ticks))


def _mean(result: CorruptionResult, severity: int) -> float:
    rows = [row.accuracy for row in result.rows if row.severity == severity]
    return sum(rows) / len(rows)


def _interval(result: CorruptionResult, severity: int) -> tuple[float, float]:
    """Of the mean over the corruptions in one severity, by the shares of the images."""
    count = len(result.corruptions)
    shares = [
        1 - sum(severity in each for each in verdict.wrong.values()) / count for verdict in result.verdicts
    ]
    return mean_interval(shares, 0.0, 1.0).interval


def write_gallery(
    path: Path,
    names: Sequence[str],
    rows: Sequence[Tensor],
    said: Sequence[Sequence[tuple[str, bool]]],
) -> None:
    """A PNG of one image under each corruption.

    Args:
        rows: for each severity, (len(names), C, H, W).
        said: for each severity and corruption the predicted class, and whether it is wrong.
    """
    columns = min(COLUMNS, len(names))
    blocks = -(-len(names) // columns)
    figure, axes = plots.figure(
        (1.5 * columns, 1.5 * blocks * len(rows) + 0.2), blocks * len(rows), columns, squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for place, name in enumerate(names):
        block, column = divmod(place, columns)
        for number, (images, answers) in enumerate(zip(rows, said, strict=True)):
            axis = axes[block * len(rows) + number, column]
            axis.imshow(images[place].permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1)
            answer, wrong = answers[place]
            title = f"{name}\n→ {answer}" if number == 0 else f"→ {answer}"
            axis.set_title(title, fontsize=8, color=plots.RED if wrong else "black")
    plots.save(figure, path)
