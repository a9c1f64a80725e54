"""Train a GAN or a VAE on images."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from advkit.core import device as devices
from advkit.core import distributed, images, rng
from advkit.core.context import Context
from advkit.core.runs import RunFolder
from advkit.data.load import load_data
from advkit.gan.cost import passes
from advkit.gan.game import Game, concrete
from advkit.gan.result import GanTrainingResult, recent
from advkit.gan.sample import sample as draw_images
from advkit.gan.sample_logger import BEST
from advkit.gan.settings import GanTraining as Config
from advkit.gan.train import TrainedGan, begin, train_gan
from advkit.models.checkpoint import load_checkpoint, save_model
from advkit.models.model import Model
from advkit.models.network import Generator, numbers
from advkit.models.store import Store, refuse_bad_name
from advkit.report import gan as report
from advkit.report.figures.gan import WAYS, write_film, write_ways
from advkit.report.outcome import Outcome, Table, planned
from advkit.training.board import refuse_without_tensorboard

GROUP = "GANs"
EXAMPLE = "advkit gan-train --data mnist --arch conv-gan --steps 12001"
DISTRIBUTED = True


def run(config: Config, context: Context) -> Outcome:
    """Trains a GAN or a VAE on the training split."""
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
    with context.run_folder("gan-train", data.name, config, inputs) as run:

        def work() -> GanTrainingResult | None:
            trained = train_gan(config, data, run=run, device=device, progress=context.progress)
            if distributed.rank() > 0:
                return None
            return _finish(game, trained, run, device)

        return report.trained(run.once(GanTrainingResult, work), run.path)


def _finish(game: Game, trained: TrainedGan, run: RunFolder, device: torch.device) -> GanTrainingResult:
    """Writes the models, to the run folder and to the store, and the pictures."""
    for name, model in trained.models.items():
        save_model(model, run.path / f"{name}.safetensors", overwrite=True)
    models = {**trained.models, "best": load_checkpoint(run.path / BEST)}
    for name, model in models.items():
        Store().add(model, f"{game.name}-{name}")
    config, rows = game.config, run.history()
    _draw(game, load_checkpoint(run.path / "ema.safetensors").to(device), run.path)
    return GanTrainingResult(
        config=config.model_dump(mode="json"),
        seed=config.seed,
        data=game.data.facts,
        models={
            name: {"name": f"{game.name}-{name}", "hash": model.hash, "parameters": numbers(model.network)}
            for name, model in models.items()
        },
        best={"by": config.keep_by, "step": models["best"].card.training["step"]},
        last=recent(rows, [*game.figures, *(["d_accuracy"] if config.kind == "gan" else [])]),
        images_per_second=rows[-1]["images_per_second"],
        resumed_at=trained.resumed_at,
        warnings=trained.warnings,
    )


def _draw(game: Game, ema: Model, folder: Path) -> None:
    """The last grid, interpolations between samples, and an animation of the training."""
    seed = game.config.seed
    drawn, _ = draw_images(ema, report.SIDE**2, seed)
    images.write_grid(folder / "grid.png", drawn, report.SIDE)
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
    rows = tuple(
        (name, f"{sizes[name]:,}", f"{count['forwards']:,}", f"{count['backwards']:,}")
        for name, count in cost.items()
    )
    return planned(
        f"{what} on {len(data):,} images of {data.name}: "
        f"{config.steps:,} steps of {config.batch_size} real images, {seen:,} in all, "
        f"which is {seen / len(data):,.1f} times each.",
        f"In the model store as {game.name}-{', -'.join([*game.networks, 'ema', 'best'])}.",
        table=Table("cost", ("network", "parameters", "images forward", "images backward"), rows),
        config=config.model_dump(mode="json"),
        data=data.facts.model_dump(),
        parameters=sizes,
        images=seen,
        passes=cost,
    )
