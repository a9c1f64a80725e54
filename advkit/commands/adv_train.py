"""Train a robust classifier (adversarial training)."""

from __future__ import annotations

from collections.abc import Sequence

from advkit.attacks.perturb import make
from advkit.core import device as devices
from advkit.core import distributed, rng
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.device import arithmetic
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.classes import match_classes
from advkit.data.data import Data
from advkit.data.load import load_splits
from advkit.data.subjects import Subject
from advkit.models.card import ModelCard, Relation, ThreatFacts
from advkit.models.foreign_settings import ForeignModel
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.models.network import ARCHITECTURES, build
from advkit.report import training as report
from advkit.report.outcome import Outcome, Table, planned
from advkit.training.export import (
    export,
    export_beside,
    model_file,
    parent,
    store_name,
    trained_card,
)
from advkit.training.extra import load_extra
from advkit.training.loop import fit
from advkit.training.objective import OBJECTIVES, Objective
from advkit.training.result import TrainingResult
from advkit.training.score import counts
from advkit.training.settings import AdversarialTraining as Config
from advkit.training.several import named, passes, refuse_misfits

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
    """Trains a robust classifier."""
    return trained(config, context, "adv-train")


def trained(config: Config, context: Context, command: str) -> Outcome:
    """Trains a classifier, robust or ordinary.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    file = model_file(context)
    train, test = load_splits(config.data, context.data_dir)
    model, train, test = _beginning(config, train, test, context)
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
    inputs = {
        **model.beginning(),
        "training images": rest.fingerprint,
        "held-out images": held and held.fingerprint,
        "test images": test.fingerprint,
        "extra images": extra and extra.fingerprint,
    }
    with context.run_folder(command, train.name, config, inputs, beside=file) as run:

        def work() -> TrainingResult | None:
            before = _measure(model.to(device), test, against, config.seed) if config.model else None
            relation: Relation = "hardened-from" if objective.needs_threat else "fine-tuned-from"
            lineage = (parent(relation, model),) if config.model else ()
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
            if distributed.rank() > 0:
                return None
            card = trained_card(
                model.card,
                command,
                config,
                done.step,
                labels=train.class_names,
                lineage=lineage,
                data=train.facts,
                threat=ThreatFacts(norm=first.norm, eps=first.eps) if trained_against else None,
                metrics={f"held_out_{key}_accuracy": value for key, value in done.scores.items()},
                notes="",
            )
            hardened = Model(done.best.network, card)
            return TrainingResult(
                config=config.model_dump(mode="json"),
                model=export(hardened, name, run, file, overwrite=context.overwrite),
                card=card,
                beside=export_beside(done.companions, hardened, name, run),
                kept_step=done.step,
                held_out=held and len(held),
                images_per_second=done.images_per_second,
                warnings=done.warnings,
                test={
                    "data": test.facts,
                    "attack": "pgd",
                    "parameters": ATTACKER,
                    "before": before,
                    "after": after,
                },
            )

        return report.trained(run.once(TrainingResult, work), run.path)


def _beginning(config: Config, train: Data, test: Data, context: Context) -> tuple[Model, Data, Data]:
    """The classifier to train, the given one or a new one; the data have the numbers of its classes."""
    if config.model is not None:
        if config.architecture:
            raise ConfigError(f"{config.model} has its own architecture; leave --set architecture... out")
        model = load_model(
            config.model,
            role="classifier",
            classes=train.classes,
            **config.said | {"shape": config.shape or train.shape},
        )
        subject = Subject.of(model, train, evaluated=False)
        subject.say(config.model, context)
        return model, subject.images, match_classes(test, model.card.labels, model.card.classes)
    if config.said != ForeignModel(arch=config.arch).said:
        raise ConfigError("these options describe a --model, but none is given; name one with --model")
    arch = config.arch or ("lenet" if train.shape[0] == 1 else "resnet18-cifar")
    if config.arch is None:
        context.progress.say(
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
    return Model(network, card), train, test


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
    return planned(
        f"{model.card.architecture} on {len(rest):,} images of {config.data}, "
        f"objective {config.objective}, {report.threatened(config.model_dump())}.",
        f"In addition, {config.checks} checks on the held-out images.",
        table=Table("cost", ("epochs", "updates", "images forward", "images backward"), rows),
        config=config.model_dump(mode="json"),
        updates=updates,
        forwards=forwards * epochs,
        backwards=backwards * epochs,
    )
