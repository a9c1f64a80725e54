"""Accuracy by severity, and a gallery of corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from advkit.core.stats import mean_interval
from advkit.evaluation.corruptions.result import CorruptionResult
from advkit.report import plots

COLUMNS = 5
"""Corruptions beside each other in a gallery."""


def write_severities(path: Path, result: CorruptionResult) -> None:
    """A PNG of the accuracy over severity: each corruption thin, their mean with its 95 % interval."""
    figure, axis = plots.figure((6.5, 4.2))
    places = [0, *result.severities]
    clean = result.clean_correct / result.n
    ends = {}
    for name in result.corruptions:
        line = [clean, *(row.accuracy for row in result.rows if row.corruption == name)]
        axis.plot(places, [100 * each for each in line], color=plots.GREY, linewidth=0.8, alpha=0.6)
        ends[name] = 100 * line[-1]
    for place, name in _apart(ends):
        axis.text(places[-1] * 1.02, place, name, fontsize=7, va="center")
    means = [clean, *(_mean(result, severity) for severity in result.severities)]
    axis.plot(places, [100 * each for each in means], color=plots.BLUE, marker="o", label="mean")
    bounds = [result.clean_interval, *(_interval(result, severity) for severity in result.severities)]
    low, high = ([100 * end[side] for end in bounds] for side in (0, 1))
    axis.fill_between(places, low, high, color=plots.BLUE, alpha=0.18, linewidth=0, label="95 % interval")
    axis.set(
        title=f"{result.data.name} {result.data.split}, n = {result.n:,}",
        xlabel="severity",
        ylabel="accuracy in %",
        ylim=(0, 101),
        xlim=(0, places[-1] * 1.22),
    )
    axis.set_xticks(places, ["clean", *map(str, result.severities)])
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", fontsize=9)
    plots.save(figure, path)


def _apart(ends: dict[str, float], least: float = 3.3) -> list[tuple[float, str]]:
    """Places for names beside these values, so far apart that they can be read."""
    placed: list[tuple[float, str]] = []
    for value, name in sorted((value, name) for name, value in ends.items()):
        placed.append((max(value, placed[-1][0] + least) if placed else value, name))
    over = max(0.0, placed[-1][0] - 99)
    return [
        (place - over * rank / max(1, len(placed) - 1), name) for rank, (place, name) in enumerate(placed)
    ]


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
        path: where.
        names: of the corruptions.
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
