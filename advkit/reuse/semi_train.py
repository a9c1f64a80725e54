"""The loop of semi-supervised training: updates, metrics, and states to resume from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from advkit.core import memory
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.models.model import Model
from advkit.reuse.semi_game import FIGURES, SemiGame
from advkit.training.diverged import stop_if_diverged


@dataclass(frozen=True)
class SemiTrained:
    """What training leaves."""

    model: Model
    """The averaged classifier, in eval mode."""
    generator: torch.nn.Module
    step: int
    images_per_second: float
    """Unlabelled images a second of training."""
    history: list[dict[str, Any]] = field(repr=False)
    """Rows of the metrics: step, epoch, and the means of `FIGURES` since the row before."""


def train_semi(game: SemiGame, *, run: RunFolder | None = None, progress: Progress = SILENT) -> SemiTrained:
    """Runs the training to its end.

    Args:
        game: as it begins.
        run: folder for metrics and the state to resume from; None keeps nothing.
        progress: shows losses and images a second.

    Raises:
        DivergedError: a loss is no longer finite; the last state stays.
    """
    config, history = game.config, list[dict[str, Any]]()
    if run is not None and (state := run.load_state()) is not None:
        game.restore(state)
        history = run.history()
        progress.say(f"resuming at update {game.step} of {game.steps}")
    first, spent = game.step, 0.0
    figures, tick = [], time.perf_counter()
    shown = progress.task("semi-supervised training", game.steps, done=first, unit="update")
    with memory.kept(), shown as task:
        while game.step < game.steps:
            figures.append(game.train_step())
            if game.step % config.checkpoint_every and game.step < game.steps:
                continue
            row = dict(zip(FIGURES, torch.stack(figures).mean(0).tolist(), strict=True))
            remedy = f"try a smaller --rate (it was {config.rate:g})"
            stop_if_diverged(f"update {game.step} of {game.steps}", row, remedy)
            spent += time.perf_counter() - tick
            row["epoch"] = game.step * config.batch_size / len(game.unlabelled)
            history.append({"step": game.step, **row})
            rate = (game.step - first) * config.batch_size / spent
            task.advance(len(figures), **row, **{"images/s": rate})
            if run is not None:
                run.metrics(game.step, **row)
                run.save_state(game.state())
            figures, tick = [], time.perf_counter()
    rate = (game.step - first) * config.batch_size / spent if spent else 0.0
    return SemiTrained(game.ema.network, game.generator, game.step, rate, history)
