"""The average that measured best so far, kept beside the last ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from advkit.core.runs import RunFolder
from advkit.gan.game import Game
from advkit.models.checkpoint import save_model

BEST = "best.safetensors"


class Best:
    """Keeps ``best.safetensors`` in a run folder.

    What was best is read from the rows that an earlier process wrote, so a resumed run keeps the same file.

    Args:
        figure: by which it is chosen.
        run: the folder; None keeps nothing.
    """

    def __init__(self, figure: Literal["fid", "coverage"], run: RunFolder | None) -> None:
        self.figure, self.run = figure, run
        rows = [row for row in run.history() if figure in row] if run is not None else []
        self.rank = max((self._rank(row) for row in rows), default=float("-inf"))

    def _rank(self, row: Mapping[str, Any]) -> float:
        value = float(row[self.figure])
        return -value if self.figure == "fid" else value

    def see(self, row: Mapping[str, Any], game: Game) -> None:
        """Writes the average of ``game`` if the row of metrics says that it is better than all before."""
        if (rank := self._rank(row)) > self.rank:
            self.rank = rank
            if self.run is not None:
                save_model(game.average(), self.run.path / BEST, overwrite=True)
