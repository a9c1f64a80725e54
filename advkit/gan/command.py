"""``advkit gan-train`` and ``advkit gan-sample``: run folder, pictures, the store, and what to do next."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from advkit import device as devices
from advkit import files, images
from advkit.data.load import load_data
from advkit.errors import ConfigError
from advkit.gan.cost import passes
from advkit.gan.curves import write_curves
from advkit.gan.labelled import sample_labelled
from advkit.gan.monitor import WON, covered, first_warnings, warnings
from advkit.gan.plan import GanTraining, Sampling
from advkit.gan.sample import sample as draw_images
from advkit.gan.train import GanGame, TrainedGan, train_gan
from advkit.models.checkpoint import SUFFIXES, load_checkpoint, save_model
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.models.store import Store, refuse_bad_name
from advkit.runs import RunFolder, environment
from advkit.trade import Context, Outcome, Picture, Table

RECENT = 500
"""Steps at the end of training whose mean is reported."""
BALANCED = (0.45, 0.75)
"""Accuracy of the discriminator within which neither side is far ahead."""
GRID = 20
"""Rows and columns of the last grid."""


def train(config: GanTraining, context: Context) -> Outcome:
    """Trains a GAN on the training split; a killed run goes on with the same command.

    Raises:
        UserError: whatever is wrong with the names, the data or the place.
    """
    data = load_data(config.data, "train", root=context.data_dir)
    game = GanGame(config, data, torch.device("cpu"))  # says what is wrong before there is a folder
    for name in game.opponents:
        refuse_bad_name(f"{game.name}-{name}")
    if context.dry_run:
        return _plan(game)
    device = devices.choose(context.device)
    inputs = {"training images": data.fingerprint}
    with RunFolder.open(
        "gan-train", data.name, config, context.out, inputs=inputs, resume=context.resume
    ) as run:
        if run.finished:
            context.progress.say(f"{run.path} is finished; this is what came of it")
        else:
            begun = time.perf_counter()
            trained = train_gan(config, data, run=run, device=device, progress=context.progress)
            _deliver(trained, game.name, run)
            rows = run.history()
            title = f"{game.name}: losses and the discriminator's accuracy"
            write_curves(run.path / "curves.png", rows, title=title)
            ema = load_checkpoint(run.path / "ema.safetensors").to(device)
            drawn, _ = draw_images(ema, GRID * GRID, config.seed)
            images.write_grid(run.path / "grid.png", drawn, GRID)
            run.finish(_result(game, trained, rows, seconds=time.perf_counter() - begun))
        return _trained_outcome(run.result(), run.path)


def _plan(game: GanGame) -> Outcome:
    config, data = game.config, game.data
    networks: dict[str, nn.Module] = {"generator": game.generator, **game.opponents}
    cost = {
        name: {"forwards": count.forwards * config.steps, "backwards": count.backwards * config.steps}
        for name, count in passes(game).items()
    }
    seen = config.steps * config.batch_size
    sizes = {name: _size(network) for name, network in networks.items()}
    rows = [
        (name, f"{sizes[name]:,}", f"{count['forwards']:,}", f"{count['backwards']:,}")
        for name, count in cost.items()
    ]
    return Outcome(
        title="what would be done",
        sentences=(
            f"The pair {config.arch} on {len(data):,} images of {data.name}, loss {config.loss}: "
            f"{config.steps:,} steps of {config.batch_size} real images, {seen:,} in all, "
            f"which is {seen / len(data):,.1f} times each.",
            f"In the model store as {game.name}-generator, -ema and -{', -'.join(game.opponents)}.",
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


def _size(network: nn.Module) -> int:
    """Numbers that a network consists of, batch norm's running statistics among them."""
    return sum(tensor.numel() for tensor in network.state_dict().values() if tensor.is_floating_point())


def _models(trained: TrainedGan) -> dict[str, Model]:
    return {"generator": trained.generator, "ema": trained.ema, **trained.opponents}


def _deliver(trained: TrainedGan, prefix: str, run: RunFolder) -> None:
    """Writes the models to the run folder and to the store."""
    for name, model in _models(trained).items():
        save_model(model, run.path / f"{name}.safetensors", overwrite=True)
        Store().add(model, f"{prefix}-{name}")


def _result(
    game: GanGame, trained: TrainedGan, rows: Sequence[Mapping[str, Any]], *, seconds: float
) -> dict[str, Any]:
    return {
        "schema": "advkit/gan-training",
        "version": 1,
        "config": game.config.model_dump(mode="json"),
        "seed": game.config.seed,
        "data": game.data.facts.model_dump(),
        "models": {
            name: {"name": f"{game.name}-{name}", "hash": model.hash, "parameters": _size(model.network)}
            for name, model in _models(trained).items()
        },
        "last": _recent(rows),
        "images_per_second": rows[-1]["images_per_second"],
        "seconds": seconds,
        "resumed_at": trained.resumed_at,
        "warnings": first_warnings(rows),
        "environment": environment(),
    }


def _recent(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the last steps, a row counting as the steps that it covers; diversity is the last one."""
    first = rows[-1]["step"] - RECENT
    recent = [(count, row) for count, row in zip(covered(rows), rows, strict=True) if row["step"] > first]
    steps = sum(count for count, _ in recent)
    figures = ("d_loss", "d_accuracy", "d_accuracy_real", "d_accuracy_fake", "g_loss")
    means = {name: sum(count * row[name] for count, row in recent) / steps for name in figures}
    return {"steps": steps, **means, "diversity": rows[-1]["diversity"]}


def _trained_outcome(result: dict[str, Any], folder: Path) -> Outcome:
    """The result in words; the same when a finished run is asked again."""
    config, models, last = result["config"], result["models"], result["last"]
    row = (
        f"{last['d_loss']:.3f}",
        f"{last['d_accuracy_real']:.1%}",
        f"{last['d_accuracy_fake']:.1%}",
        f"{last['g_loss']:.3f}",
        f"{last['diversity']:.0%}",
        f"{result['images_per_second']:,.0f}",
    )
    ema = models["ema"]["name"]
    discriminator = models[next(name for name in models if name not in ("generator", "ema"))]["name"]
    data = "" if config["data"] == "digits" else f" --data {shlex.quote(config['data'])}"
    return Outcome(
        title=f"a GAN of {result['data']['name']}: {config['arch']}, {config['steps']:,} steps",
        sentences=(
            _balance(last),
            f"Samples of the averaged generator differ {last['diversity']:.0%} as much as real images do.",
            *(sentence.capitalize() + "." for sentence in warnings(last).values()),
            f"In the model store as {', '.join(model['name'] for model in models.values())}.",
        ),
        tables=(
            Table(
                f"means over the last {last['steps']:,} steps",
                ("D loss", "D right on real", "on generated", "G loss", "diversity", "images/s"),
                (row,),
            ),
        ),
        pictures=(
            Picture(
                "generated images", folder / "grid.png", f"{GRID * GRID} samples of the averaged generator."
            ),
            Picture("curves", folder / "curves.png", "Losses and the discriminator's accuracy by step."),
        ),
        files=(*(folder / f"{name}.safetensors" for name in models), folder),
        next=(
            f"advkit gan-sample --model {ema} --n 400 --out {result['data']['name']}.png",
            f"advkit finetune --model {discriminator}{data} --out clf.pt",
            f"advkit models lineage {discriminator}",
        ),
        result=result,
    )


def _balance(last: Mapping[str, float]) -> str:
    """How the game stands, said by the discriminator's accuracy."""
    accuracy = last["d_accuracy"]
    told = f"The discriminator was right about {accuracy:.0%} of the images"
    if accuracy > WON:
        return f"{told}: near 100 % it wins every time, and the generator is too weak to learn much."
    if accuracy > BALANCED[1]:
        return f"{told}: ahead of the generator (50 % is balance, near 100 % the generator is too weak)."
    if accuracy < BALANCED[0]:
        return f"{told}, less than by guessing: it is too weak; try a larger --rate-discriminator."
    return f"{told}: near balance (50 %, where it can only guess; near 100 % the generator is too weak)."


def sample(config: Sampling, context: Context) -> Outcome:
    """Draws images from a generator into a grid (``.png``) or arrays (``.npz``).

    Raises:
        ModelError: no such model, or it is no generator.
        ConfigError: another suffix.
        OutputError: the file exists.
    """
    path = _image_file(config, context)
    device = str(devices.choose(context.device))
    model = load_model(config.model, role="generator", device=device)
    classifier = config.classifier and load_model(config.classifier, role="classifier", device=device)
    if config.labels and not classifier and model.card.classes is None:
        raise ConfigError(
            f"{config.model} is unconditional, so its images have no classes of their own; name a classifier "
            "that tells them with --classifier, or leave --labels out"
        )
    columns = config.columns or math.ceil(math.sqrt(config.n))
    size = "x".join(map(str, model.card.shape))
    result = {
        "model": {"name": config.model, "hash": model.hash, "architecture": model.card.architecture},
        "classifier": {"name": config.classifier, "hash": classifier.hash} if classifier else None,
        "n": config.n,
        "seed": config.seed,
        "shape": list(model.card.shape),
        "file": str(path),
    }
    if context.dry_run:
        sentence = f"{config.n:,} images ({size}) of {config.model}, seed {config.seed}, into {path}."
        return Outcome(title="what would be done", sentences=(sentence,), result=result)
    told: list[str] = []
    labels: torch.Tensor | None
    if classifier:
        drawn, labels, latents, tried = sample_labelled(
            model,
            classifier,
            config.n,
            confidence=config.confidence,
            seed=config.seed,
            progress=context.progress,
        )
        result["tried"] = tried
        told.append(
            f"Kept of {tried:,} images: those of which {config.classifier} is at least "
            f"{config.confidence:.0%} sure, the same number of each class."
        )
    else:
        drawn, latents = draw_images(model, config.n, config.seed, progress=context.progress)
        classes = model.card.classes
        labels = None if classes is None else torch.arange(config.n) % classes
    title = f"{config.n:,} images of {config.model}"
    if path.suffix == ".png":
        images.write_grid(path, drawn, min(columns, config.n))
        pictures = (Picture("generated images", path, f"{title}, seed {config.seed}."),)
        return Outcome(title=title, sentences=tuple(told), pictures=pictures, files=(path,), result=result)
    arrays = {"x": drawn.numpy(), "z": latents.numpy()}
    if labels is not None:
        arrays["y"] = labels.numpy()
        if names := (classifier or model).card.labels:
            arrays["class_names"] = np.array(names)
        told.append(f"A trainer takes them with --extra-data npz:{path}")
    told.insert(0, f"x: {size} levels from 0 to 255 for each image; z: its latent vector.")
    files.write_arrays(path, **arrays)
    return Outcome(title=title, sentences=tuple(told), files=(path,), result=result)


def _image_file(config: Sampling, context: Context) -> Path:
    """Where to write, looked at before the work begins."""
    path = context.out
    if path is None:
        name = Path(config.model).name
        for suffix in SUFFIXES:
            name = name.removesuffix(suffix)
        path = Path(re.sub(r"[^A-Za-z0-9._-]+", "-", name) + ".png")
    if path.suffix not in (".png", ".npz"):
        raise ConfigError(f"cannot write images as {path}: end its name with .png (a grid) or .npz (arrays)")
    files.refuse_to_replace(path, overwrite=context.overwrite)
    return path
