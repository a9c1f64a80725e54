"""Train a GAN or a VAE on images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from advkit.core import device as devices
from advkit.core import distributed, images, rng
from advkit.core.context import Context
from advkit.core.runs import RunFolder, environment
from advkit.data.load import load_data
from advkit.gan.cost import passes
from advkit.gan.game import Game, concrete
from advkit.gan.sample import sample as draw_images
from advkit.gan.sample_logger import BEST
from advkit.gan.settings import GanTraining as Config
from advkit.gan.train import TrainedGan, begin, train_gan
from advkit.models.checkpoint import load_checkpoint, save_model
from advkit.models.model import Model
from advkit.models.network import Generator, numbers
from advkit.models.store import Store, refuse_bad_name
from advkit.report import gan as outcome
from advkit.report.figures.gan import WAYS, write_film, write_ways
from advkit.report.figures.gan_curves import write_curves
from advkit.report.gan import SIDE
from advkit.report.outcome import Outcome, Table
from advkit.training.board import refuse_without_tensorboard

GROUP = "GANs"
EXAMPLE = "advkit gan-train --data mnist --arch conv-gan --steps 12001"
DISTRIBUTED = True


def run(config: Config, context: Context) -> Outcome:
    """Trains a GAN on the training split; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the names, the data or the place.
    """
    data = load_data(config.data, "train", root=context.data_dir)
    if config.tensorboard:
        refuse_without_tensorboard()
    device = devices.choose(context.device)
    config = concrete(config, device)
    game = begin(config, data, torch.device("cpu"))  # fails before there is a folder
    for name in ("ema", "best", *game.networks):
        refuse_bad_name(f"{game.name}-{name}")
    if context.dry_run:
        return _plan(game)
    inputs = {"training images": data.fingerprint}
    with RunFolder.open(
        "gan-train", data.name, config, context.out, inputs=inputs, resume=context.resume
    ) as run:
        if not run.is_finished(context.progress):
            begun = time.perf_counter()
            trained = train_gan(config, data, run=run, device=device, progress=context.progress)
            with distributed.together():
                if distributed.rank() == 0:
                    _finish(game, trained, run, device, seconds=time.perf_counter() - begun)
        return outcome.trained(run.result(), run.path)


def _finish(game: Game, trained: TrainedGan, run: RunFolder, device: torch.device, *, seconds: float) -> None:
    """Models, pictures and the result."""
    models = _export(trained, game.name, run)
    rows = run.history()
    title = f"{game.name}: losses and the discriminator's accuracy"
    write_curves(run.path / "curves.png", rows, title=title)
    _draw(game, load_checkpoint(run.path / "ema.safetensors").to(device), run.path)
    run.finish(_result(game, trained, models, rows, seconds=seconds))


def _draw(game: Game, ema: Model, folder: Path) -> None:
    """The last grid, interpolations between samples, and an animation of the training."""
    seed = game.config.seed
    drawn, _ = draw_images(ema, SIDE * SIDE, seed)
    images.write_grid(folder / "grid.png", drawn, SIDE)
    generator = cast(Generator, ema.network)
    ids = torch.arange(2 * WAYS, device=next(generator.parameters()).device)
    labels = () if game.classes is None else (ids[:WAYS] % game.classes,)
    write_ways(folder / "interpolation.png", generator, generator.draw(rng.keys(seed, "ways", ids)), *labels)
    write_film(folder / "training.gif", folder / "samples")


def _plan(game: Game) -> Outcome:
    config, data = game.config, game.data
    cost = {
        name: {"forwards": count.forwards * config.steps, "backwards": count.backwards * config.steps}
        for name, count in passes(game).items()
    }
    seen = config.steps * config.batch_size
    what = f"The {config.kind} {config.arch}"
    if config.kind == "gan":
        what = f"The pair {config.arch}, loss {config.loss},"
    sizes = {name: numbers(network) for name, network in game.networks.items()}
    rows = [
        (name, f"{sizes[name]:,}", f"{count['forwards']:,}", f"{count['backwards']:,}")
        for name, count in cost.items()
    ]
    return Outcome(
        title="what would be done",
        sentences=(
            f"{what} on {len(data):,} images of {data.name}: "
            f"{config.steps:,} steps of {config.batch_size} real images, {seen:,} in all, "
            f"which is {seen / len(data):,.1f} times each.",
            f"In the model store as {game.name}-{', -'.join([*game.networks, 'ema', 'best'])}.",
        ),
        tables=(Table("cost", ("network", "parameters", "images forward", "images backward"), tuple(rows)),),
        result={
            "config": config.model_dump(mode="json"),
            "data": data.facts.model_dump(),
            "parameters": sizes,
            "images": seen,
            "passes": cost,
        },
    )


def _export(trained: TrainedGan, prefix: str, run: RunFolder) -> dict[str, Model]:
    """Writes the models, with the best EMA generator, to the run folder and to the store; returns them."""
    for name, model in trained.models.items():
        save_model(model, run.path / f"{name}.safetensors", overwrite=True)
    models = {**trained.models, "best": load_checkpoint(run.path / BEST)}
    for name, model in models.items():
        Store().add(model, f"{prefix}-{name}")
    return models


def _result(
    game: Game,
    trained: TrainedGan,
    models: Mapping[str, Model],
    rows: Sequence[Mapping[str, Any]],
    *,
    seconds: float,
) -> dict[str, Any]:
    figures = [*game.figures, *(["d_accuracy"] if game.config.kind == "gan" else [])]
    return {
        "schema": "advkit/gan-training",
        "version": 1,
        "config": game.config.model_dump(mode="json"),
        "seed": game.config.seed,
        "data": game.data.facts.model_dump(),
        "models": {
            name: {"name": f"{game.name}-{name}", "hash": model.hash, "parameters": numbers(model.network)}
            for name, model in models.items()
        },
        "best": {"by": game.config.keep_by, "step": models["best"].card.training["step"]},
        "last": outcome.recent(rows, figures),
        "images_per_second": rows[-1]["images_per_second"],
        "seconds": seconds,
        "resumed_at": trained.resumed_at,
        "warnings": trained.warnings,
        "environment": environment(),
    }
