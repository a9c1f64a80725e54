"""Measure accuracy under rotations and translations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advkit.attacks.perturb import device_of
from advkit.core import files
from advkit.core.context import Context
from advkit.core.errors import OutputError
from advkit.core.runs import RunFolder
from advkit.core.stats import accuracy
from advkit.data.data import Data
from advkit.data.subjects import Subject, flags
from advkit.evaluation.spatial.evaluate import evaluate_moves, limits, moved_images
from advkit.evaluation.spatial.moves import grid_moves
from advkit.evaluation.spatial.result import SpatialResult
from advkit.evaluation.spatial.settings import Spatial as Config
from advkit.models.mode import evaluation_mode
from advkit.models.model import Model
from advkit.report.figures.spatial import least_moved, write_curve, write_examples
from advkit.report.outcome import Outcome, Picture, Table

GROUP = "Robustness"
EXAMPLE = "advkit spatial --model clf.pt --rotation 30 --shift 3"


def run(config: Config, context: Context) -> Outcome:
    """Rotates and translates images until they are misclassified; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    kept = _may_save(config, context)
    subject = Subject.open(config, context)
    model, data = subject.model, subject.images
    if context.dry_run:
        return _plan(config, model, data)
    with RunFolder.open(
        "spatial", data.name, config, context.out, inputs=subject.inputs, resume=context.resume
    ) as run:
        result = run.once(
            SpatialResult,
            lambda: evaluate_moves(subject, config, run=run, progress=context.progress),
            context.progress,
        )
        moved = moved_images(data, result)
        pictures = _pictures(run.path, result, model, data, moved)
        if kept is not None:
            _save(kept, data, moved, result)
        return _outcome(config, result, pictures, (*([kept] if kept else []), run.path))


def _may_save(config: Config, context: Context) -> Path | None:
    if config.save is None:
        return None
    path = Path(config.save)
    if path.suffix != ".npz":
        raise OutputError(f"--save {path}: unknown kind {path.suffix!r}; name a .npz file")
    files.refuse_to_replace(path, overwrite=context.overwrite)
    return path


def _plan(config: Config, model: Model, data: Data) -> Outcome:
    grid = len(grid_moves(limits(config, data), config.rotations, config.shifts))
    forwards = len(data) * (config.random + grid + 1)
    return Outcome(
        title="what would be done",
        sentences=(
            f"{model.card.architecture} on {len(data):,} images of {data.name} ({data.split}), each under "
            f"{config.random} random transformations and {grid} of a grid.",
            f"At most {forwards:,} forward passes; an image is not tried again once it is misclassified.",
        ),
        result={"n": len(data), "moves_random": config.random, "moves_grid": grid, "forwards": forwards},
    )


def _pictures(
    folder: Path, result: SpatialResult, model: Model, data: Data, moved: Tensor
) -> tuple[Picture, ...]:
    curve = Picture("accuracy by size", folder / "curve.png", "Accuracy on the grid as its range grows.")
    write_curve(curve.path, result)
    shown = least_moved(result)
    if not shown:
        return (curve,)
    places = {sample: index for index, sample in enumerate(data.ids.tolist())}
    images = moved[torch.tensor([places[verdict.id] for verdict in shown])]
    with torch.no_grad(), evaluation_mode(model):
        said = model(images.to(device_of(model))).argmax(1).tolist()
    examples = Picture(
        "adversarial transformations",
        folder / "examples.png",
        "The smallest transformations that are misclassified: true class and predicted class.",
    )
    write_examples(examples.path, shown, data, images, said)
    return (examples, curve)


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


def _outcome(
    config: Config, result: SpatialResult, pictures: tuple[Picture, ...], written: tuple[Path, ...]
) -> Outcome:
    n, clean = result.n, result.clean_correct
    tried = [
        ("none (clean)", clean, clean),
        (f"worst of {result.moves_random} random", clean, result.random_correct),
        (f"grid of {result.moves_grid}", clean, result.grid_correct),
        ("all of these", clean, result.robust_correct),
    ]
    rows = tuple((name, f"{before - left:,}", accuracy(left, n)) for name, before, left in tried)
    sentences = [result.sentence]
    if result.status == "partial":
        sentences.append(f"Partial: {n} images only.")
    if result.unconfirmed:
        sentences.append(
            f"{result.unconfirmed} transformations fooled the model in the search, but not when repeated; "
            "they are not counted."
        )
    sentences.append(f"{result.forwards:,} forward passes.")
    subject = flags([config.model], result.data.name, arch=config.arch, said=config)
    return Outcome(
        title=f"rotations and translations against {config.model}",
        sentences=tuple(sentences),
        tables=(
            Table(
                f"up to {result.rotation:g} degrees and {result.shift:g} px, n = {n:,}",
                ("transformations", "misclassified", "robust accuracy [95 % interval]"),
                rows,
            ),
        ),
        pictures=pictures,
        files=written,
        next=(
            f"advkit spatial {subject} --shift 0",
            f"advkit spatial {subject} --rotation 0",
        ),
        result=result.as_values(),
    )
