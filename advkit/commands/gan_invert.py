"""Invert a generator: latent vectors of given images."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.core import files
from advkit.core.context import Context
from advkit.data.classes import match_classes
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.data.subjects import learned
from advkit.gan.evaluation.subject import open_subject
from advkit.gan.neighbours import pieces
from advkit.report import trained_attacks as report
from advkit.report.outcome import Outcome, planned
from advkit.trained_attacks.latent.invert import invert
from advkit.trained_attacks.latent.result import InversionResult, Reached
from advkit.trained_attacks.latent.settings import GanInversion as Config
from advkit.trained_attacks.latent.settings import InversionSettings

GROUP = "GANs"
EXAMPLE = "advkit gan-invert --model digits-conv-gan-ema --n 20"


def run(config: Config, context: Context) -> Outcome:
    """Inverts a generator."""
    subject = open_subject(config.model, context.device)
    name = config.data or learned(config.model, subject.card)
    chosen = load_data(name, config.split, root=context.data_dir).limit(config.n)
    if subject.classes is not None:
        chosen = match_classes(chosen, subject.card.labels, subject.classes)
    train = load_data(name, "train", root=context.data_dir)
    config = config.model_copy(update={"data": name})
    if context.dry_run:
        passes = (config.steps + 1) * config.restarts * len(chosen)
        return planned(
            f"{len(chosen)} images of {chosen.name} ({chosen.split}), {config.restarts} starts each, "
            f"{config.steps} steps: {passes:,} images forward and backward through {config.model}.",
            n=len(chosen),
            passes=passes,
        )
    inputs = {"model": subject.hash, "images": chosen.fingerprint, "training images": train.fingerprint}
    with context.run_folder("gan-invert", train.name, config, inputs) as run:

        def work() -> InversionResult:
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
            errors, nearest = _nearest(x, train, itself=chosen.split == train.split, ids=chosen.ids)
            files.write_arrays(
                run.path / "latents.npz",
                latent=found.latent.numpy(),
                label=labels.numpy(),
                id=chosen.ids.numpy(),
                original=x.numpy(),
                reconstruction=found.images.numpy(),
                error=found.error.numpy(),
            )
            report.draw_inversion(run.path, x, found, train, nearest)
            ids = (chosen.ids, train.ids[nearest])
            columns = (ids[0], labels, found.error, found.start_error, errors, ids[1], found.start)
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
            )

        return report.inversion(config, run.once(InversionResult, work), run.path)


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
