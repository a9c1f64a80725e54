"""Measure accuracy under rotations and translations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advkit.core import files
from advkit.core.context import Context
from advkit.core.errors import OutputError
from advkit.data.data import Data
from advkit.data.subjects import Subject
from advkit.evaluation.spatial.evaluate import evaluate_moves, limits, moved_images
from advkit.evaluation.spatial.moves import grid_moves
from advkit.evaluation.spatial.result import SpatialResult
from advkit.evaluation.spatial.settings import Spatial as Config
from advkit.report import evaluation as report
from advkit.report.outcome import Outcome, planned

GROUP = "Robustness"
EXAMPLE = "advkit spatial --model clf.pt --rotation 30 --shift 3"


def run(config: Config, context: Context) -> Outcome:
    """Rotates and translates images until they are misclassified."""
    kept = _may_save(config, context)
    subject = Subject.open(config, context)
    model, data = subject.model, subject.images
    if context.dry_run:
        grid = len(grid_moves(limits(config, data), config.rotations, config.shifts))
        forwards = len(data) * (config.random + grid + 1)
        return planned(
            f"{model.card.architecture} on {len(data):,} images of {data.name} ({data.split}), each under "
            f"{config.random} random transformations and {grid} of a grid.",
            f"At most {forwards:,} forward passes; an image is not tried again once it is misclassified.",
            n=len(data),
            moves_random=config.random,
            moves_grid=grid,
            forwards=forwards,
        )
    with context.run_folder("spatial", data.name, config, subject.beginning) as run:
        result = run.once(
            SpatialResult, lambda: evaluate_moves(subject, config, run=run, progress=context.progress)
        )
        moved = moved_images(data, result)
        pictures = report.least_moved(run.path, result, model, data, moved)
        if kept is not None:
            _save(kept, data, moved, result)
        return report.spatial(config, result, pictures, (*([kept] if kept else []), run.path))


def _may_save(config: Config, context: Context) -> Path | None:
    if config.save is None:
        return None
    path = Path(config.save)
    if path.suffix != ".npz":
        raise OutputError(f"--save {path}: unknown kind {path.suffix!r}; name a .npz file")
    files.refuse_to_replace(path, overwrite=context.overwrite)
    return path


def _save(path: Path, data: Data, moved: Tensor, result: SpatialResult) -> None:
    original, labels = data.batch(torch.arange(len(data)))
    moves = [verdict.move for verdict in result.verdicts]
    files.write_arrays(
        path,
        x=moved.numpy(),
        y=labels.numpy(),
        original=original.numpy(),
        id=data.ids.numpy(),
        status=np.array([verdict.status for verdict in result.verdicts]),
        move=np.array([(to.angle, to.across, to.down) if to else (0.0, 0.0, 0.0) for to in moves]),
    )
