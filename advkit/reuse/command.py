"""``advkit finetune``: a discriminator becomes a classifier, with its run folder and what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch

from advkit import __version__
from advkit import device as devices
from advkit.attacks.perturb import logits_of
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.models.card import ModelCard, Parent
from advkit.models.load import load_model
from advkit.models.mode import evaluation_mode
from advkit.models.model import Model
from advkit.progress import Progress
from advkit.reuse.classifier import TRUNK, from_discriminator, from_scratch
from advkit.reuse.plan import FineTuning
from advkit.runs import RunFolder, now
from advkit.stats import accuracy
from advkit.trade import Context, Outcome, Picture, Table
from advkit.training.curves import write_curves
from advkit.training.deliver import deliver, known_as, model_file, store_name
from advkit.training.loop import Trained, fit
from advkit.training.objectives.standard import Standard


def finetune(config: FineTuning, context: Context) -> Outcome:
    """Makes a classifier of a discriminator; a killed run goes on with the same command.

    Raises:
        UserError: whatever is wrong with the model, the data or the options.
    """
    file = model_file(context)
    discriminator = load_model(config.model, role="discriminator")
    train, test = (load_data(config.data, split, root=context.data_dir) for split in ("train", "test"))
    model = from_discriminator(discriminator, train, config.seed)
    labelled = train if config.labels == "all" else train.take(train.balanced(config.labels))
    trunk = discriminator.card.architecture.removesuffix("-discriminator")
    name = store_name(config.name, train.name, trunk, "classifier")
    epochs = config.updates(len(labelled)) // config.batches(len(labelled))
    config = config.model_copy(update={"epochs": epochs, "name": name})
    if context.dry_run:
        return _plan(config, model, labelled)
    folder = None if file else context.out
    inputs = {
        "model": model.hash,
        "training images": labelled.fingerprint,
        "test images": test.fingerprint,
    }
    with RunFolder.open("finetune", train.name, config, folder, inputs=inputs, resume=context.resume) as run:
        if run.finished:
            context.progress.say(f"{run.path} is finished; this is what came of it")
        else:
            device = devices.choose(context.device)
            trained, tested = _train(
                config, discriminator, model, labelled, test, run, device, context.progress
            )
            card = _card(config, model, discriminator, labelled, trained, tested["fine-tuned"] / len(test))
            classifier = Model(trained.model.network, card)
            title = f"{name}: accuracy on training batches"
            write_curves(run.path / "curves.png", trained.history, title=title)
            written = deliver(classifier, name, run, file, overwrite=context.overwrite)
            run.finish(_result(config, classifier, written, labelled, test, trained, tested))
        return _outcome(run.result(), run.path)


def _train(
    config: FineTuning,
    discriminator: Model,
    model: Model,
    labelled: Data,
    test: Data,
    run: RunFolder,
    device: torch.device,
    progress: Progress,
) -> tuple[Trained, dict[str, int]]:
    """The fine-tuned classifier, and how many test images are right with it and with the one beside it.

    The one from scratch keeps no state: after a crash it is trained again, to the same weights.
    """
    objective, rates = Standard(Standard.Config()), {TRUNK: config.trunk_rate}
    if config.mode == "probe":
        model.get_submodule("network.trunk").requires_grad_(False)
    trained = fit(
        model,
        config,
        labelled,
        objective=objective,
        run=run,
        device=device,
        progress=progress,
        rates=rates,
        name="fine-tuning",
    )
    tested = {"fine-tuned": _correct(trained.model, test)}
    if config.scratch:
        beside = fit(
            from_scratch(discriminator, labelled, config.seed),
            config,
            labelled,
            objective=objective,
            device=device,
            progress=progress,
            rates=rates,
            name="training from scratch",
        )
        tested["from scratch"] = _correct(beside.model, test)
    return trained, tested


def _card(
    config: FineTuning, model: Model, discriminator: Model, labelled: Data, trained: Trained, tested: float
) -> ModelCard:
    parent = Parent(relation="fine-tuned-from", hash=discriminator.hash, name=known_as(discriminator.hash))
    return model.card.model_copy(
        update={
            "lineage": (parent,),
            "data": labelled.facts,
            "training": {"command": "finetune", **config.model_dump(mode="json"), "step": trained.step},
            "metrics": {"test_accuracy": tested},
            "created": now(),
            "advkit": __version__,
        }
    )


def _correct(model: Model, test: Data) -> int:
    with evaluation_mode(model):
        return int((logits_of(model, test).argmax(1) == test.labels).sum())


def _plan(config: FineTuning, model: Model, labelled: Data) -> Outcome:
    updates = config.updates(len(labelled)) * (2 if config.scratch else 1)
    passes = updates * min(config.batch_size, len(labelled))
    return Outcome(
        title="what would be done",
        sentences=(
            f"{model.card.config['trunk']} as a classifier of {config.data}, {len(labelled):,} labels, "
            f"{config.mode} fine-tuning: {updates:,} updates, {passes:,} images forward and backward.",
        ),
        result={"config": config.model_dump(mode="json"), "updates": updates, "passes": passes},
    )


def _result(
    config: FineTuning,
    model: Model,
    written: list[Path],
    labelled: Data,
    test: Data,
    trained: Trained,
    tested: dict[str, int],
) -> dict[str, Any]:
    return {
        "schema": "advkit/fine-tuning",
        "version": 1,
        "config": config.model_dump(mode="json"),
        "model": {"name": config.name, "hash": model.hash, "files": [str(path) for path in written]},
        "card": model.card.model_dump(mode="json", by_alias=True),
        "updates": trained.step,
        "images_per_second": trained.images_per_second,
        "labels": len(labelled),
        "label_ids": None if config.labels == "all" else labelled.ids.tolist(),
        "test": {"data": test.facts.model_dump(), "n": len(test), "correct": tested},
    }


def _outcome(result: dict[str, Any], folder: Path) -> Outcome:
    """The result in words; the same when a finished run is asked again."""
    config, test = result["config"], result["test"]
    sentences = [
        f"In the model store as {result['model']['name']}, trained on {result['labels']:,} labels "
        f"with {result['updates']:,} updates."
    ]
    if result["label_ids"] is not None:
        sentences.append("Which labels: label_ids in result.json.")
    model = shlex.quote(result["model"]["files"][0])
    rows = [(how, accuracy(correct, test["n"]), f"{test['n']:,}") for how, correct in test["correct"].items()]
    return Outcome(
        title=f"a classifier of {config['data']} from {config['model']}",
        sentences=tuple(sentences),
        tables=(
            Table(f"{test['data']['name']} test images", ("", "accuracy [95 % interval]", "n"), tuple(rows)),
        ),
        pictures=(
            Picture("curves", folder / "curves.png", "Accuracy on training batches as the training went on."),
        ),
        files=(*map(Path, result["model"]["files"]), folder),
        next=(
            f"advkit attack --model {model}",
            f"advkit adv-train --model {model} --out hard.pt",
            f"advkit models lineage {result['model']['name']}",
        ),
        result=result,
    )
