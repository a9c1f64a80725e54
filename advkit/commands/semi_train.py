"""Train on few labels (semi-supervised GAN)."""

from __future__ import annotations

import torch

from advkit.core import device as devices
from advkit.core import images, rng
from advkit.core.context import Context
from advkit.core.runs import RunFolder
from advkit.data.load import load_splits
from advkit.models.card import ModelCard
from advkit.models.checkpoint import save_model
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.report import training as report
from advkit.report.outcome import Outcome, planned
from advkit.reuse.result import SemiTrainingResult
from advkit.reuse.semi_game import SemiGame
from advkit.reuse.settings import SemiSupervised as Config
from advkit.reuse.tested import errors, facts, threat_of
from advkit.training.export import export, model_file, parent, store_name, trained_card
from advkit.training.loop import repeat

GROUP = "Classifiers"
EXAMPLE = "advkit semi-train --data mnist --labels 100 --out clf.pt"

GRID = 10
"""Rows and columns of the grid of generated images."""


def run(config: Config, context: Context) -> Outcome:
    """Trains a classifier on few labels and many images."""
    file = model_file(context)
    train, test = load_splits(config.data, context.data_dir)
    labelled = train.take(train.balanced(config.labels, config.label_set))
    discriminator = None if config.model is None else load_model(config.model, role="discriminator")
    plan = SemiGame(config, labelled, train, discriminator, torch.device("cpu"))
    threat = threat_of(config.norm, config.eps, plan.model, test)
    name = store_name(config.name, train.name, plan.pair, "semi", str(len(labelled)))
    config = config.model_copy(update={"arch": plan.pair, "name": name})
    if context.dry_run:
        passes = 5 * plan.steps * config.batch_size  # three kinds of images, then real and generated ones
        return planned(
            f"{plan.pair} on {len(train):,} images of {config.data}, {len(labelled):,} of them with labels: "
            f"{plan.steps:,} updates, {passes:,} images forward through the classifier.",
            config=config.model_dump(mode="json"),
            updates=plan.steps,
            passes=passes,
        )
    inputs = {
        "model": discriminator and discriminator.hash,
        "training images": train.fingerprint,
        "labels": labelled.fingerprint,
        "test images": test.fingerprint,
    }
    with context.run_folder("semi-train", train.name, config, inputs, beside=file) as run:

        def work() -> SemiTrainingResult:
            game = SemiGame(config, labelled, train, discriminator, devices.choose(context.device))
            course = repeat(game, run=run, progress=context.progress, name="semi-supervised training")
            average = game.ema.network
            tested = errors(average, test, threat, config.seed)
            card = trained_card(
                game.model.card,
                "semi-train",
                config,
                game.step,
                lineage=(parent("fine-tuned-from", discriminator),) if discriminator else (),
                data=labelled.facts,
                metrics={"test_accuracy": 1 - tested["clean"] / tested["n"]},
            )
            _draw(game, config, run)
            classifier = Model(average.network, card)
            return SemiTrainingResult(
                config=config.model_dump(mode="json"),
                model=export(classifier, name, run, file, overwrite=context.overwrite),
                card=card,
                updates=game.step,
                images_per_second=course.images_per_second,
                last=course.history[-1],
                labels=len(labelled),
                label_ids=labelled.ids.tolist(),
                test={"data": test.facts, "attack": facts(threat), **tested},
            )

        return report.semi_supervised(run.once(SemiTrainingResult, work), run.path)


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
    )
    card = trained_card(card, "semi-train", config, game.step)
    save_model(Model(generator, card), run.path / "generator.safetensors", overwrite=True)
