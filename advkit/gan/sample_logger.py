"""What is measured while a generator learns, on samples of the same latent vectors."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from advkit.core import images, rng
from advkit.core.runs import RunFolder
from advkit.gan.judge import are_stacked
from advkit.gan.monitor import WATCHED, Monitor
from advkit.gan.sample import draw
from advkit.models.checkpoint import save_model
from advkit.training.board import Board

if TYPE_CHECKING:
    from advkit.gan.game import Game

SIDE = 10
"""Rows and columns of a grid of samples."""
BEST = "best.safetensors"
"""In the run folder: the EMA generator that measured best so far."""


class SampleLogger:
    """Draws samples of a game's EMA generator and records them; the caller closes its ``board``.

    Args:
        game: the training, at the step from which this process goes on.
        run: where grids, the best EMA generator and TensorBoard's files are kept; None keeps nothing.
    """

    def __init__(self, game: Game, run: RunFolder | None) -> None:
        self.game, self.run = game, run
        places = torch.arange(WATCHED, device=game.device)
        classes = () if game.classes is None else (places % SIDE % game.classes,)  # a class each column
        self._fixed = (game.latent(places, "fixed"), *classes)
        rows = [] if run is None else run.history()
        self.best = max((self._rank(row) for row in rows if "fid" in row), default=float("-inf"))
        """The best that was measured, by an earlier process too; larger is better."""
        self.board = Board(run.path if run is not None and game.config.tensorboard else None, game.step)

    @cached_property
    def _monitor(self) -> Monitor:
        """Made when it is first asked, so that the first step need not wait for it."""
        data = self.game.data
        rows = rng.permutation(self.game.config.seed, "yardstick", len(data))[:WATCHED]
        return Monitor(*data.batch(rows), stacked=are_stacked(data))

    def log(self) -> dict[str, Any]:
        """Statistics of samples now (`Monitor.look`); writes the grid and the best EMA generator."""
        step, samples = self.game.step, draw(self.game.ema_generator, *self._fixed)
        found = self._monitor.look(samples, *self._fixed[1:])
        if self.run is not None:
            self.keep_best(found)
            images.write_grid(self.run.path / "samples" / f"step-{step:06d}.png", samples[: SIDE**2], SIDE)
        self.board.samples(step, samples[: SIDE**2], SIDE)
        return found

    def keep_best(self, found: dict[str, Any]) -> None:
        """Writes the EMA generator if its samples are better than all before."""
        if (rank := self._rank(found)) > self.best and self.run is not None:
            self.best = rank
            save_model(self.game.average(), self.run.path / BEST, overwrite=True)

    def _rank(self, found: dict[str, Any]) -> float:
        by = self.game.config.keep_by
        return -found[by] if by == "fid" else float(found[by])
