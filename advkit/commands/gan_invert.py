"""Invert a generator: latent vectors of given images."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import torch
from torch import Tensor

from advkit.core import files, images
from advkit.core.context import Context
from advkit.core.runs import RunFolder, environment
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.data.subjects import learned
from advkit.gan.evaluation.subject import Subject, open_subject
from advkit.gan.neighbours import pieces
from advkit.report.outcome import Outcome, Picture, Table
from advkit.trained_attacks.latent.invert import Inverted, invert
from advkit.trained_attacks.latent.result import InversionResult, Reached
from advkit.trained_attacks.latent.settings import GanInversion as Config
from advkit.trained_attacks.latent.settings import InversionSettings

GROUP = "GANs"
EXAMPLE = "advkit gan-invert --model digits-conv-gan-ema --n 20"

COLUMNS = 20
"""Images across the picture."""
SHOWN = 60
"""Images in it at most."""


def run(config: Config, context: Context) -> Outcome:
    """Inverts a generator; a finished run shows its result again.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    subject = open_subject(config.model, context.device)
    name = config.data or learned(config.model, subject.card)
    chosen = load_data(name, config.split, root=context.data_dir).limit(config.n)
    train = load_data(name, "train", root=context.data_dir)
    config = config.model_copy(update={"data": name})
    if context.dry_run:
        return _plan(config, chosen)
    inputs = {"model": subject.hash, "images": chosen.fingerprint, "training images": train.fingerprint}
    with RunFolder.open(
        "gan-invert", train.name, config, context.out, inputs=inputs, resume=context.resume
    ) as run:

        def work() -> InversionResult:
            begun = time.perf_counter()
            x, labels = chosen.batch(torch.arange(len(chosen)))
            found = invert(
                subject.generator,
                x,
                labels,
                config,
                ids=chosen.ids,
                encoder=subject.whole,
                progress=context.progress,
            )
            errors, nearest = _nearest(x, train, itself=config.split == "train", ids=chosen.ids)
            result = _result(config, subject, chosen, train, found, errors, nearest, begun)
            _write(run.path, chosen, x, train, found, nearest)
            return result

        result = run.once(InversionResult, work, context.progress)
        return _outcome(config, result, run.path)


def _nearest(x: Tensor, train: Data, *, itself: bool, ids: Tensor) -> tuple[Tensor, Tensor]:
    """(mean squared differences (N,) to the nearest training image, its row (N,)); a training image is not
    its own neighbour."""
    everything, _ = train.batch(torch.arange(len(train)))
    size = x[0].numel()
    errors, rows = torch.empty(len(x)), torch.empty(len(x), dtype=torch.int64)
    for where, distance in pieces(x.flatten(1), everything.flatten(1)):
        if itself:
            distance = distance.masked_fill(ids[where][:, None] == train.ids[None], torch.inf)
        squares, rows[where] = distance.min(1)
        errors[where] = squares / size
    return errors, rows


def _result(
    config: Config,
    subject: Subject,
    chosen: Data,
    train: Data,
    found: Inverted,
    errors: Tensor,
    nearest: Tensor,
    begun: float,
) -> InversionResult:
    columns = (
        chosen.ids,
        chosen.labels,
        found.error,
        found.start_error,
        errors,
        train.ids[nearest],
        found.start,
    )
    names = ("id", "label", "error", "start_error", "nearest_error", "nearest_id", "start")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return InversionResult(
        model=config.model,
        model_hash=subject.hash,
        data=chosen.facts,
        train=train.facts,
        settings=config.model_dump(mode="json", include=set(InversionSettings.model_fields)),
        n=len(chosen),
        error=float(found.error.mean()),
        start_error=float(found.start_error.mean()),
        nearest_error=float(errors.mean()),
        nearer=int((found.error < errors).sum()),
        images=tuple(Reached(**dict(zip(names, row, strict=True))) for row in rows),
        seconds=time.perf_counter() - begun,
        environment=environment(),
    )


def _write(folder: Path, chosen: Data, x: Tensor, train: Data, found: Inverted, nearest: Tensor) -> None:
    """The latent vectors, and the picture."""
    files.write_arrays(
        folder / "latents.npz",
        latent=found.latent.numpy(),
        label=chosen.labels.numpy(),
        id=chosen.ids.numpy(),
        original=x.numpy(),
        reconstruction=found.images.numpy(),
        error=found.error.numpy(),
    )
    shown = min(len(x), SHOWN)
    beside, _ = train.batch(nearest[:shown])
    columns = min(COLUMNS, shown)
    bands = []
    for part in torch.arange(shown).split(columns):
        for each in (x, found.images, beside):
            blank = torch.ones(columns - len(part), *x.shape[1:])
            bands.append(torch.cat([each[part], blank]))
    images.write_grid(folder / "reconstructions.png", torch.cat(bands), columns)


def _plan(config: Config, chosen: Data) -> Outcome:
    passes = (config.steps + 1) * config.restarts * len(chosen)
    return Outcome(
        title="what would be done",
        sentences=(
            f"{len(chosen)} images of {chosen.name} ({chosen.split}), {config.restarts} starts each, "
            f"{config.steps} steps: {passes:,} images forward and backward through {config.model}.",
        ),
        result={"n": len(chosen), "passes": passes},
    )


def _outcome(config: Config, result: InversionResult, folder: Path) -> Outcome:
    rows = (
        ("inverted", f"{result.error:.4f}"),
        ("nearest training image", f"{result.nearest_error:.4f}"),
        (f"best of {config.restarts} starts", f"{result.start_error:.4f}"),
    )
    model, data = shlex.quote(config.model), shlex.quote(config.data or "")
    return Outcome(
        title=f"latent vectors of {result.n} images",
        sentences=(
            result.sentence,
            f"The reconstruction is nearer than any training image on {result.nearer} of {result.n}.",
        ),
        tables=(Table("mean squared error, pixels in [0, 1]", ("", "mean"), rows),),
        pictures=(
            Picture(
                "reconstructions",
                folder / "reconstructions.png",
                "Images, below each its reconstruction, and below that the nearest training image.",
            ),
        ),
        files=(folder / "latents.npz", folder),
        next=(
            f"advkit gan-invert --model {model} --data {data} --steps {3 * config.steps}",
            f"advkit gan-sample --model {model} --n 400 --out samples.png",
        ),
        result=result.as_values(),
    )
