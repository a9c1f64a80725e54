"""Train a robust classifier (adversarial training)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from advkit import __version__
from advkit.attacks.perturb import make
from advkit.core import device as devices
from advkit.core import distributed, rng
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.device import arithmetic
from advkit.core.errors import ConfigError
from advkit.core.progress import Progress
from advkit.core.runs import RunFolder, now
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.models.card import ModelCard, Parent, Relation, ThreatFacts
from advkit.models.foreign_settings import ForeignModel
from advkit.models.inspect import inspect_classifier
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.models.network import ARCHITECTURES, build
from advkit.report.figures.training import write_curves
from advkit.report.outcome import Outcome, Table
from advkit.report.training import outcome, threatened
from advkit.training.export import export, export_beside, known_as, model_file, store_name
from advkit.training.extra import load_extra
from advkit.training.loop import fit
from advkit.training.objective import OBJECTIVES, Objective
from advkit.training.score import counts
from advkit.training.settings import AdversarialTraining as Config
from advkit.training.several import named, passes, refuse_misfits
from advkit.training.trainer import Trained

GROUP = "Classifiers"
EXAMPLE = "advkit adv-train --model clf.pt --objective pgd --epochs 30 --out hard.pt"
DISTRIBUTED = True

HELD = 1000
"""Images held out at most: more would make the checks expensive."""
TESTED = 1000
"""Test images attacked at most, before and after; as many of each class."""
ATTACKER = {"steps": 20}
"""The PGD of the comparison before and after."""


def run(config: Config, context: Context) -> Outcome:
    """Trains a robust classifier; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    return trained(config, context, "adv-train")


def trained(config: Config, context: Context, command: str) -> Outcome:
    """Trains a classifier, robust or ordinary; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    file = model_file(context)
    train, test = (load_data(config.data, split, root=context.data_dir) for split in ("train", "test"))
    model = _beginning(config, train, context.progress)
    kind = OBJECTIVES.get(config.objective)
    objective = kind(validate(kind.Config, config.parameters, f"objective {config.objective!r}"))
    against: list[Threat] = []
    # Ordinary training needs no threat model; with one, the result has the robust accuracy.
    if objective.needs_threat or config.norm or config.eps or train.threat or model.card.threat:
        first = threats.choose(config.norm, config.eps, model, train, context.progress)
        against = [first, *map(named, config.also)]
        config = config.model_copy(update={"norm": first.norm, "eps": first.eps})
    trained_against = against if objective.needs_threat else []
    for one in against:
        make("pgd", one, ATTACKER)  # fails now on a norm that PGD does not support
    refuse_misfits(objective, trained_against, config.union)
    device = devices.choose(context.device)
    name = store_name(config.name, train.name, model.card.architecture, config.objective)
    rest, held = _split(train, config)
    extra = load_extra(config, rest, context.data_dir)
    config = config.model_copy(
        update={
            "arch": config.arch if config.model else model.card.architecture,
            "precision": arithmetic(config.precision, device),
            "epochs": config.updates(len(rest)) // config.batches(len(rest)),
            "name": name,
        }
    )
    if context.dry_run:
        return _plan(config, model, rest, objective)
    folder = None if file else context.out
    inputs = {
        "model": model.hash,
        "training images": rest.fingerprint,
        "held-out images": held and held.fingerprint,
        "test images": test.fingerprint,
        "extra images": extra and extra.fingerprint,
    }
    with RunFolder.open(command, train.name, config, folder, inputs=inputs, resume=context.resume) as run:
        if not run.is_finished(context.progress):
            before = _measure(model.to(device), test, against, config.seed) if config.model else None
            parent = _parent(model, objective) if config.model else None
            done = fit(
                model,
                config,
                rest,
                held,
                objective=objective,
                extra=extra,
                threat=next(iter(trained_against), None),
                also=trained_against[1:],
                union=config.union,
                patience=config.patience,
                run=run,
                device=device,
                progress=context.progress,
            )
            after = _measure(done.best, test, against, config.seed)
            with distributed.together():
                if distributed.rank() == 0:
                    card = _card(config, model.card, parent, train, trained_against, done, command)
                    hardened = Model(done.best.network, card)
                    best = next((row["epoch"] for row in done.history if row["step"] == done.step), None)
                    write_curves(run.path / "curves.png", done.history, title=name, best=best)
                    written = export(hardened, name, run, file, overwrite=context.overwrite)
                    beside = export_beside(done.companions, hardened, name, run)
                    run.finish(_result(config, hardened, written, beside, done, test, before, after))
        return outcome(run.result(), run.path)


def _beginning(config: Config, train: Data, progress: Progress) -> Model:
    """The classifier to train: the given one, or a new one."""
    if config.model is not None:
        if config.architecture:
            raise ConfigError(f"{config.model} has its own architecture; leave --set architecture... out")
        model = load_model(
            config.model,
            role="classifier",
            arch=config.arch,
            classes=train.classes,
            **config.said | {"shape": config.shape or train.shape},
        )
        few, _ = train.batch(torch.arange(min(8, len(train))))
        for note in inspect_classifier(model, few, train.classes).notes:
            progress.say(f"{config.model}: {note}")
        return model
    if config.said != ForeignModel().said:
        raise ConfigError("these options describe a --model, but none is given; name one with --model")
    arch = config.arch or ("lenet" if train.shape[0] == 1 else "resnet18-cifar")
    if config.arch is None:
        progress.say(
            f"architecture: {arch}, from scratch (--arch chooses another, --model continues from one)"
        )
    if (role := ARCHITECTURES.entry(arch).facts["role"]) != "classifier":
        raise ConfigError(f"architecture {arch!r} is a {role}; name a classifier (`advkit ls architectures`)")
    with rng.scope("cpu", config.seed, "init"):
        network = build(arch, shape=train.shape, classes=train.classes, config=config.architecture)
    card = ModelCard(
        role="classifier",
        architecture=ARCHITECTURES.entry(arch).name,
        config=config.architecture,
        shape=train.shape,
        classes=train.classes,
    )
    return Model(network, card)


def _parent(model: Model, objective: Objective) -> Parent:
    digest = model.hash
    relation: Relation = "hardened-from" if objective.needs_threat else "fine-tuned-from"
    return Parent(relation=relation, hash=digest, name=known_as(digest))


def _split(train: Data, config: Config) -> tuple[Data, Data | None]:
    """(images to train on, images held out)"""
    if config.holdout == 0:
        return train, None
    return train.holdout(min(config.holdout, HELD / len(train)))


def _measure(model: Model, test: Data, against: Sequence[Threat], seed: int) -> dict[str, int | None]:
    n = min(len(test), max(TESTED, test.classes))
    images = test if n == len(test) else test.take(test.balanced(n))  # the first n may all be of one class
    clean, robust = counts(model, images, against, parameters=ATTACKER, seed=seed)
    return {"clean": clean, "robust": robust if against else None, "n": n}


def _plan(config: Config, model: Model, rest: Data, objective: Objective) -> Outcome:
    images = min(config.batch_size, len(rest)) * config.batches(len(rest))
    cost = passes(objective, 1 + len(config.also), config.union)
    forwards, backwards = cost.forwards * images, cost.backwards * images
    epochs, updates = config.updates(len(rest)) // config.batches(len(rest)), config.updates(len(rest))
    rows = (
        ("an epoch", f"{config.batches(len(rest)):,}", f"{forwards:,}", f"{backwards:,}"),
        (f"all {epochs:,}", f"{updates:,}", f"{forwards * epochs:,}", f"{backwards * epochs:,}"),
    )
    return Outcome(
        title="what would be done",
        sentences=(
            f"{model.card.architecture} on {len(rest):,} images of {config.data}, "
            f"objective {config.objective}, {threatened(config.model_dump())}.",
            f"In addition, {config.checks} checks on the held-out images.",
        ),
        tables=(Table("cost", ("epochs", "updates", "images forward", "images backward"), rows),),
        result={
            "config": config.model_dump(mode="json"),
            "updates": updates,
            "forwards": forwards * epochs,
            "backwards": backwards * epochs,
        },
    )


def _card(
    config: Config,
    before: ModelCard,
    parent: Parent | None,
    train: Data,
    against: Sequence[Threat],
    trained: Trained,
    command: str,
) -> ModelCard:
    return before.model_copy(
        update={
            "labels": train.class_names,
            "lineage": (parent,) if parent else (),
            "data": train.facts,
            "threat": ThreatFacts(norm=against[0].norm, eps=against[0].eps) if against else None,
            "training": {"command": command, **config.model_dump(mode="json"), "step": trained.step},
            "metrics": {f"held_out_{key}_accuracy": value for key, value in trained.scores.items()},
            "created": now(),
            "advkit": __version__,
            "notes": "",
        }
    )


def _result(
    config: Config,
    model: Model,
    written: list[Path],
    beside: dict[str, str],
    trained: Trained,
    test: Data,
    before: dict[str, int | None] | None,
    after: dict[str, int | None],
) -> dict[str, Any]:
    return {
        "schema": "advkit/training",
        "version": 1,
        "config": config.model_dump(mode="json"),
        "model": {"name": config.name, "hash": model.hash, "files": [str(path) for path in written]},
        "card": model.card.model_dump(mode="json", by_alias=True),
        "beside": beside,
        "kept_step": trained.step,
        "images_per_second": trained.images_per_second,
        "warnings": trained.warnings,
        "test": {
            "data": test.facts.model_dump(),
            "attack": "pgd",
            "parameters": ATTACKER,
            "before": before,
            "after": after,
        },
    }
