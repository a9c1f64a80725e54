"""Pictures drawn with matplotlib: no display, and files that appear whole; it is imported when first used."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advkit.core import files
from advkit.core.errors import readable

LOG = logging.getLogger(__name__)

RED = "#b00020"


def figure(size: tuple[float, float], rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Any, Any]:
    """A matplotlib figure and its axes.

    Args:
        size: width and height in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots(rows, columns, **settings)


def save(figure: Any, path: Path) -> None:
    """Writes the figure as a PNG; one that cannot be drawn is left out with a logged warning.

    Its texts are names and numbers, never formulas.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        words = readable(text.get_text())
        if "\\mathdefault" not in words:  # else matplotlib's own power of ten
            text.set_text(words.replace("$", "\\$"))
    try:
        with warnings.catch_warnings(), files.atomic(path) as temporary:
            warnings.simplefilter("ignore")  # of letters that the font lacks
            figure.savefig(temporary, format="png", dpi=120)
    except Exception as fault:  # the result is there, whatever happens to its pictures
        LOG.warning("%s is missing: it could not be drawn (%s: %s)", path, type(fault).__name__, fault)


def write_images(
    path: Path,
    rows: Sequence[Any],
    above: Sequence[str],
    below: Sequence[str] = (),
    *,
    red: Sequence[bool] | None = None,
    answers: int = -1,
    names: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """A PNG of images and of what became of them, one column an example.

    Args:
        rows: (N, C, H, W) tensors: the images, and their changed forms.
        above: what each image is.
        below: what the classifier calls its changed form; by default nothing is written.
        red: where that is written in red; None: everywhere.
        names: of the rows, on the left.
        notes: below each column.
    """
    height = 1.55 * len(rows) + 0.1 + 0.3 * bool(notes)
    made, axes = figure((1.3 * len(above) + 0.2, height), len(rows), len(above), squeeze=False)
    for row, shown in enumerate(rows):
        for axis, picture in zip(axes[row], shown, strict=True):
            axis.imshow(picture.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
    for column, first in enumerate(above):
        axes[0, column].set_title(first, fontsize=10)
    for column, answer in enumerate(below):
        colour = RED if red is None or red[column] else "black"
        axes[answers, column].set_title(f"→ {answer}", fontsize=10, color=colour)
    for row, name in enumerate(names):
        axes[row, 0].set_ylabel(name, fontsize=10)
    for column, note in enumerate(notes):
        axes[-1, column].set_xlabel(note, fontsize=9)
    save(made, path)
