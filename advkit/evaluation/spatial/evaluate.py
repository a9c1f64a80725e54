"""The search over all images, which can be resumed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from advkit.attacks.perturb import device_of, logits_of
from advkit.core.journal import Record
from advkit.core.progress import SILENT, Progress, Share
from advkit.core.runs import RunFolder
from advkit.data.data import Data
from advkit.data.subjects import Subject
from advkit.evaluation.spatial.moves import Limits, grid_moves, random_moves
from advkit.evaluation.spatial.result import By, Move, SpatialResult, SpatialVerdict
from advkit.evaluation.spatial.search import first_success, is_wrong, move
from advkit.evaluation.spatial.settings import Spatial
from advkit.models.model import Model, evaluation_mode


class Entry(SpatialVerdict):
    """A verdict, and what it cost."""

    forwards: int
    """Forward passes, that of the original among them."""
    unconfirmed: int
    """Transformations that succeeded in the search but not on the recomputed image."""


def limits(config: Spatial, data: Data) -> Limits:
    """The limits of the transformations; by default, the shift is a tenth of the image."""
    shift = round(min(data.shape[1:]) / 10) if config.shift is None else config.shift
    return Limits(config.rotation, float(shift))


def evaluate_moves(
    subject: Subject, config: Spatial, *, run: RunFolder | None = None, progress: Progress = SILENT
) -> SpatialResult:
    """Clean accuracy, and robust accuracy under random transformations and under the grid.

    Args:
        config: the transformations; its model and data are ignored.
        run: folder for the record; an interrupted run resumes from it.

    Raises:
        ConfigError: the run began with another model or other images.
    """
    model, data, ids = subject.model, subject.images, subject.images.ids.tolist()
    if run is not None:
        run.begin_with(**subject.beginning)
    within = limits(config, data)
    grid = grid_moves(within, config.rotations, config.shifts)
    folder = run.path if run is not None else None
    record = Record[int, Entry](folder, "moved", 1, Entry, ids, progress=progress)
    with evaluation_mode(model), record:
        known = record.entries
        correct = logits_of(model, data, config.batch_size).argmax(1) == data.labels
        if known:
            progress.say(f"{len(known)} of {len(data)} images were decided earlier")
        name = "rotations and translations"
        with progress.task(name, len(data), done=len(known), unit="image") as task:
            # Batches do not depend on earlier verdicts, since the number of passes depends on the batches.
            for rows in torch.arange(len(data)).split(config.batch_size):
                if all(ids[row] in known for row in rows.tolist()):
                    continue
                found = _entries(model, data, rows, correct[rows], within, grid, config)
                new = [entry for entry in found if entry.id not in known]
                for entry in new:
                    record.add(entry)
                left = sum(entry.status == "robust" for entry in known.values()) / len(known)
                task.advance(len(new), **{"accuracy left": Share(left)})
        record.finish()
    entries = [known[sample] for sample in ids]
    return SpatialResult.of(
        tuple(SpatialVerdict(**entry.model_dump(exclude={"forwards", "unconfirmed"})) for entry in entries),
        **subject.about(),
        rotation=within.rotation,
        shift=within.shift,
        padding=config.padding,
        moves_random=config.random,
        moves_grid=len(grid),
        seed=config.seed,
        unconfirmed=sum(entry.unconfirmed for entry in entries),
        forwards=sum(entry.forwards for entry in entries),
    )


def _entries(
    model: Model, data: Data, rows: Tensor, correct: Tensor, within: Limits, grid: Tensor, config: Spatial
) -> Iterator[Entry]:
    """One for each image of a batch. A transformation counts if its image as the CPU computes it, which is
    saved, is misclassified."""
    right = rows[correct]
    lists: dict[By, Tensor] = {
        "random": random_moves(within, data.ids[right], config.random, config.seed),
        "grid": grid.expand(len(right), -1, -1),
    }
    device, (x, label) = device_of(model), data.batch(right)
    forwards, unconfirmed = torch.ones_like(right), torch.zeros_like(right)
    broken: dict[By, dict[int, Move]] = {"random": {}, "grid": {}}
    for by, moves in lists.items() if len(right) else ():
        there = x.to(device), label.to(device), moves.to(device)
        found = first_success(model, *there, config.padding, config.batch_size)
        first = found.first.cpu()
        hit = (first >= 0).nonzero()[:, 0]
        forwards += found.tried.cpu()
        if not len(hit):
            continue
        forwards[hit] += 1
        chosen = moves[hit, first[hit]]
        again = move(x[hit], chosen, config.padding).to(device)
        confirmed = is_wrong(model, again, label[hit].to(device)).cpu()
        unconfirmed[hit] += (~confirmed).long()
        broken[by] = {
            int(right[index]): _move(to, within)
            for index, to in zip(hit[confirmed].tolist(), chosen[confirmed], strict=True)
        }
    counts = dict(zip(right.tolist(), zip(forwards.tolist(), unconfirmed.tolist(), strict=True), strict=True))
    for row in rows.tolist():
        moved = {by: broken[by].get(row) for by in broken}
        status = "misclassified" if row not in counts else "broken" if any(moved.values()) else "robust"
        passes, refused = counts.get(row, (1, 0))
        about = {"id": int(data.ids[row]), "label": int(data.labels[row]), "status": status}
        yield Entry.model_validate({**about, **moved, "forwards": passes, "unconfirmed": refused})


def _move(to: Tensor, within: Limits) -> Move:
    angle, across, down = to.tolist()
    return Move(angle=angle, across=across, down=down, size=float(within.size(to)))


def moved_images(data: Data, result: SpatialResult) -> Tensor:
    """(N, C, H, W) float32: the transformed images of the verdicts, originals where there is none."""
    x, _ = data.batch(torch.arange(len(data)))
    moves = [verdict.move for verdict in result.verdicts]
    broken = torch.tensor([index for index, to in enumerate(moves) if to is not None], dtype=torch.int64)
    to = torch.tensor([(to.angle, to.across, to.down) for to in moves if to is not None]).view(-1, 3)
    for part in torch.arange(len(broken)).split(256):
        x[broken[part]] = move(x[broken[part]], to[part], result.padding)
    return x
