"""What is looked at while a generator learns: samples of one noise, judged, drawn and compared."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from advkit.core import images, rng
from advkit.core.runs import RunFolder
from advkit.gan.best import Best
from advkit.gan.game import Game
from advkit.gan.judge import are_stacked
from advkit.gan.monitor import WATCHED, Monitor
from advkit.gan.sample import draw
from advkit.training.board import Board

SIDE = 10
"""Rows and columns of a grid of samples."""


class SampleLogger:
    """Draws samples of a game's EMA generator and records them; the caller closes its ``board``.

    Args:
        game: the training, at the step from which this process goes on.
        run: where grids, the best EMA generator and TensorBoard's files are kept; None keeps nothing.
    """

    def __init__(self, game: Game, run: RunFolder | None) -> None:
        self.game, self.run = game, run
        self._fixed = (game.latent(torch.arange(WATCHED), "fixed"), *_columns(game))
        self._best = Best(game.config.keep_by, run)
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
        self._best.see(found, self.game)
        if self.run is not None:
            images.write_grid(self.run.path / "samples" / f"step-{step:06d}.png", samples[: SIDE**2], SIDE)
        self.board.samples(step, samples[: SIDE**2], SIDE)
        return found


def _columns(game: Game) -> tuple[Tensor, ...]:
    """The classes of the grid's samples, if they are asked for: a class each column."""
    if game.classes is None:
        return ()
    return (torch.arange(WATCHED, device=game.device) % SIDE % game.classes,)
