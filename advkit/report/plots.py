"""Pictures drawn with matplotlib: no display, and files that appear whole; it is imported when first used."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from advkit.core import files
from advkit.core.errors import readable


def figure(size: tuple[float, float], rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Any, Any]:
    """A matplotlib figure and its axes.

    Args:
        size: width and height in inches.
        rows: of axes.
        columns: of axes.
        settings: of ``Figure.subplots``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots(rows, columns, **settings)


def save(figure: Any, path: Path) -> None:
    """Writes the figure as a PNG; one that cannot be drawn is left out, since its numbers are kept anyway.

    Its texts are names and numbers, never formulas.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        words = readable(text.get_text())
        if "\\mathdefault" not in words:  # else matplotlib's own power of ten
            text.set_text(words.replace("$", "\\$"))
    with suppress(Exception), warnings.catch_warnings(), files.atomic(path) as temporary:
        warnings.simplefilter("ignore")  # of letters that the font lacks
        figure.savefig(temporary, format="png", dpi=120)
