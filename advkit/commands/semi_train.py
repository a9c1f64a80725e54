"""Train on few labels (semi-supervised GAN)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch

from advkit import __version__
from advkit.core import device as devices
from advkit.core import images, rng
from advkit.core.context import Context
from advkit.core.runs import RunFolder, environment, now
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.models.card import ModelCard, Parent
from advkit.models.checkpoint import save_model
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.report.errors import table
from advkit.report.figures.semi import write_curves
from advkit.report.outcome import Outcome, Picture
from advkit.reuse.semi_game import SemiGame
from advkit.reuse.settings import SemiSupervised as Config
from advkit.reuse.tested import errors, facts, threat_of
from advkit.training.export import export, known_as, model_file, store_name
from advkit.training.loop import repeat
from advkit.training.training import Course

GROUP = "Classifiers"
EXAMPLE = "advkit semi-train --data mnist --labels 100 --out clf.pt"

GRID = 10
"""Rows and columns of the grid of generated images."""


def run(config: Config, context: Context) -> Outcome:
    """Trains a classifier on few labels and many images; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    file = model_file(context)
    train, test = (load_data(config.data, split, root=context.data_dir) for split in ("train", "test"))
    labelled = train.take(train.balanced(config.labels, config.label_set))
    discriminator = None if config.model is None else load_model(config.model, role="discriminator")
    game = SemiGame(config, labelled, train, discriminator, torch.device("cpu"))
    threat = threat_of(config.norm, config.eps, game.model, test)
    name = store_name(config.name, train.name, game.pair, "semi", str(len(labelled)))
    config = config.model_copy(update={"arch": game.pair, "name": name})
    if context.dry_run:
        return _plan(config, game)
    inputs = {
        "model": discriminator and discriminator.hash,
        "training images": train.fingerprint,
        "labels": labelled.fingerprint,
        "test images": test.fingerprint,
    }
    folder = None if file else context.out
    with RunFolder.open(
        "semi-train", train.name, config, folder, inputs=inputs, resume=context.resume
    ) as run:
        if not run.is_finished(context.progress):
            device = devices.choose(context.device)
            game = SemiGame(config, labelled, train, discriminator, device)
            course = repeat(game, run=run, progress=context.progress, name="semi-supervised training")
            average = game.ema.network
            tested = errors(average, test, threat, config.seed)
            classifier = Model(average.network, _card(config, game, discriminator, tested))
            write_curves(run.path / "curves.png", course.history, title=f"{name}: losses")
            _draw(game, config, run)
            written = export(classifier, name, run, file, overwrite=context.overwrite)
            run.finish(_result(config, game, classifier, written, test, course, tested, threat))
        return _outcome(run.result(), run.path)


def _card(config: Config, game: SemiGame, discriminator: Model | None, tested: dict[str, Any]) -> ModelCard:
    lineage: tuple[Parent, ...] = ()
    if discriminator is not None:
        digest = discriminator.hash
        lineage = (Parent(relation="fine-tuned-from", hash=digest, name=known_as(digest)),)
    return game.model.card.model_copy(
        update={
            "lineage": lineage,
            "data": game.labelled.facts,
            "training": {"command": "semi-train", **config.model_dump(mode="json"), "step": game.step},
            "metrics": {"test_accuracy": 1 - tested["clean"] / tested["n"]},
            "created": now(),
            "advkit": __version__,
        }
    )


@torch.no_grad()
def _draw(game: SemiGame, config: Config, run: RunFolder) -> None:
    """Saves the generator and its samples; with feature matching these need not look like digits."""
    generator = game.generator.eval()
    keys = rng.keys(config.seed, "fixed", torch.arange(GRID * GRID, device=game.device))
    images.write_grid(run.path / "grid.png", generator(generator.draw(keys)).cpu(), GRID)
    card = ModelCard(
        role="generator",
        architecture=f"{game.pair}-generator",
        config=config.generator,
        shape=game.unlabelled.shape,
        data=game.unlabelled.facts,
        training={"command": "semi-train", **config.model_dump(mode="json"), "step": game.step},
        created=now(),
        advkit=__version__,
    )
    save_model(Model(generator, card), run.path / "generator.safetensors", overwrite=True)


def _plan(config: Config, game: SemiGame) -> Outcome:
    passes = 5 * game.steps * config.batch_size  # three kinds of images, then real and generated ones
    return Outcome(
        title="what would be done",
        sentences=(
            f"{game.pair} on {len(game.unlabelled):,} images of {config.data}, "
            f"{len(game.labelled):,} of them with labels: {game.steps:,} updates, "
            f"{passes:,} images forward through the classifier.",
        ),
        result={"config": config.model_dump(mode="json"), "updates": game.steps, "passes": passes},
    )


def _result(
    config: Config,
    game: SemiGame,
    model: Model,
    written: list[Path],
    test: Data,
    course: Course,
    tested: dict[str, Any],
    threat: Threat | None,
) -> dict[str, Any]:
    return {
        "schema": "advkit/semi-supervised-training",
        "version": 1,
        "config": config.model_dump(mode="json"),
        "model": {"name": config.name, "hash": model.hash, "files": [str(path) for path in written]},
        "card": model.card.model_dump(mode="json", by_alias=True),
        "updates": game.step,
        "images_per_second": course.images_per_second,
        "last": course.history[-1],
        "labels": len(game.labelled),
        "label_ids": game.labelled.ids.tolist(),
        "test": {"data": test.facts.model_dump(), "attack": facts(threat), **tested},
        "environment": environment(),
    }


def _outcome(result: dict[str, Any], folder: Path) -> Outcome:
    """The outcome; the same for a finished run."""
    config, test = result["config"], result["test"]
    model = shlex.quote(result["model"]["files"][0])
    data = "" if config["data"] == "digits" else f" --data {shlex.quote(config['data'])}"
    return Outcome(
        title=f"a classifier of {config['data']} from {result['labels']:,} labels",
        sentences=(
            f"In the model store as {result['model']['name']}, trained with {result['updates']:,} updates.",
            "Which labels: label_ids in result.json. Test labels were used for this table alone.",
        ),
        tables=(table({"K+1 head": test}, test["data"]["name"], test["attack"]),),
        pictures=(
            Picture("curves", folder / "curves.png", "Losses during training."),
            Picture(
                "generated images", folder / "grid.png", "Samples of the generator that was trained with it."
            ),
        ),
        files=(*map(Path, result["model"]["files"]), folder),
        next=(
            f"advkit attack --model {model}{data}",
            f"advkit adv-train --model {model}{data} --out hard.pt",
        ),
        result=result,
    )
