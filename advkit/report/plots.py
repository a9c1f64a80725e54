"""Pictures drawn with matplotlib: no display, and files that appear whole; it is imported when first used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advkit.core import files


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
    """Writes the figure as a PNG."""
    with files.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
