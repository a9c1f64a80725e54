"""The search over all images, which can be resumed."""

from __future__ import annotations

import time
from typing import Any, get_args

import torch
from torch import Tensor

from advkit.attacks.perturb import device_of, logits_of
from advkit.core import memory
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder, environment
from advkit.data.data import Data
from advkit.evaluation.spatial.moves import Limits, grid_moves, random_moves
from advkit.evaluation.spatial.result import By, Move, SpatialResult, SpatialVerdict
from advkit.evaluation.spatial.search import first_success, is_wrong, move
from advkit.evaluation.spatial.settings import Spatial
from advkit.models.model import Model, evaluation_mode

SAVE_EVERY = 5.0
"""Seconds between writes of the state."""


def limits(config: Spatial, data: Data) -> Limits:
    """The limits of the transformations; by default, the shift is a tenth of the image."""
    shift = round(min(data.shape[1:]) / 10) if config.shift is None else config.shift
    return Limits(config.rotation, float(shift))


class SpatialEvaluation:
    """A running evaluation.

    Args:
        model: the classifier, in eval mode, on its device.
        data: the images.
        config: the transformations.
    """

    def __init__(self, model: Model, data: Data, config: Spatial) -> None:
        self.model, self.data, self.config = model, data, config
        self.device = device_of(model)
        self.limits = limits(config, data)
        self.grid = grid_moves(self.limits, config.rotations, config.shifts)
        self.correct = logits_of(model, data, config.batch_size).argmax(1) == data.labels
        self.moves = {by: torch.full((len(data), 3), torch.nan) for by in get_args(By)}
        """(N, 3) the transformation of either list that breaks each image, NaN where none does."""
        self.done, self.forwards, self.unconfirmed = 0, len(data), 0

    def advance(self) -> int:
        """Processes a batch of images; returns its size."""
        index = torch.arange(self.done, min(len(self.data), self.done + self.config.batch_size))
        right = index[self.correct[index]]
        if len(right):
            ids = self.data.ids[right]
            self._try("random", right, random_moves(self.limits, ids, self.config.random, self.config.seed))
            self._try("grid", right, self.grid.expand(len(right), -1, -1))
        self.done += len(index)
        return len(index)

    def _try(self, by: By, index: Tensor, moves: Tensor) -> None:
        """A transformation counts if its image as the CPU computes it, which is saved, is misclassified."""
        x, label = self.data.batch(index)
        there = x.to(self.device), label.to(self.device), moves.to(self.device)
        found = first_success(self.model, *there, self.config.padding, self.config.batch_size)
        first = found.first.cpu()
        broken = (first >= 0).nonzero()[:, 0]
        self.forwards += found.forwards + len(broken)
        if len(broken) == 0:
            return
        chosen = moves[broken, first[broken]]
        again = move(x[broken], chosen, self.config.padding).to(self.device)
        confirmed = is_wrong(self.model, again, label[broken].to(self.device)).cpu()
        self.moves[by][index[broken[confirmed]]] = chosen[confirmed]
        self.unconfirmed += int((~confirmed).sum())

    @property
    def left(self) -> float:
        """Robust accuracy on the images that are done."""
        broken = torch.stack([~moves[: self.done, 0].isnan() for moves in self.moves.values()]).any(0)
        return float((self.correct[: self.done] & ~broken).float().mean())

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "step": self.done,
            "moves": self.moves,
            "forwards": self.forwards,
            "unconfirmed": self.unconfirmed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a `state`."""
        self.done, self.moves = state["step"], state["moves"]
        self.forwards, self.unconfirmed = state["forwards"], state["unconfirmed"]

    def verdicts(self) -> tuple[SpatialVerdict, ...]:
        """One for each image, in the order of the data."""
        verdicts = []
        samples = zip(self.data.ids.tolist(), self.data.labels.tolist(), self.correct.tolist(), strict=True)
        for index, (sample, label, right) in enumerate(samples):
            found = {by: self._move(moves[index]) for by, moves in self.moves.items()}
            status = "misclassified" if not right else "broken" if any(found.values()) else "robust"
            verdicts.append(
                SpatialVerdict.model_validate({"id": sample, "label": label, "status": status, **found})
            )
        return tuple(verdicts)

    def _move(self, values: Tensor) -> Move | None:
        if values.isnan().any():
            return None
        angle, across, down = values.tolist()
        return Move(angle=angle, across=across, down=down, size=float(self.limits.size(values)))


def evaluate_moves(
    model: Model,
    data: Data,
    config: Spatial,
    *,
    whole: int | None = None,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> SpatialResult:
    """Clean accuracy, and robust accuracy under random transformations and under the grid.

    Args:
        model: a classifier on its device; its mode is restored.
        data: the images.
        config: the transformations; its model and data are ignored.
        whole: number of images of the whole split, where ``data`` is a part of it.
        run: folder for the state to resume from.
        progress: shows how many images are done.

    Raises:
        ConfigError: the run began with another model or other images.
    """
    begun = saved = time.perf_counter()
    if run is not None:
        run.begin_with(model=model.hash, images=data.fingerprint)
    with memory.kept(), evaluation_mode(model):
        running = SpatialEvaluation(model, data, config)
        if run is not None and (state := run.load_state()) is not None:
            running.restore(state)
            progress.say(f"resuming at image {running.done} of {len(data)}")
        name = "rotations and translations"
        with progress.task(name, len(data), done=running.done, unit="image") as task:
            while running.done < len(data):
                count = running.advance()
                if run is not None and time.perf_counter() - saved > SAVE_EVERY:
                    run.save_state(running.state())
                    saved = time.perf_counter()
                task.advance(count, **{"accuracy left": running.left})
    return SpatialResult.of(
        running.verdicts(),
        status="complete" if len(data) == (whole or len(data)) else "partial",
        rotation=running.limits.rotation,
        shift=running.limits.shift,
        padding=config.padding,
        moves_random=config.random,
        moves_grid=len(running.grid),
        model_hash=model.hash,
        data=data.facts,
        seed=config.seed,
        unconfirmed=running.unconfirmed,
        forwards=running.forwards,
        seconds=time.perf_counter() - begun,
        environment=environment(),
    )


def moved_images(data: Data, result: SpatialResult) -> Tensor:
    """(N, C, H, W) float32: the transformed images of the verdicts, originals where there is none."""
    x, _ = data.batch(torch.arange(len(data)))
    moves = [verdict.move for verdict in result.verdicts]
    broken = torch.tensor([index for index, to in enumerate(moves) if to is not None], dtype=torch.int64)
    to = torch.tensor([(to.angle, to.across, to.down) for to in moves if to is not None]).view(-1, 3)
    for part in torch.arange(len(broken)).split(256):
        x[broken[part]] = move(x[broken[part]], to[part], result.padding)
    return x
