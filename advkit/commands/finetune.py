"""Fine-tune a GAN's discriminator as a classifier."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NamedTuple

import torch

from advkit import __version__
from advkit.core import device as devices
from advkit.core.context import Context
from advkit.core.errors import ModelError
from advkit.core.progress import Progress
from advkit.core.runs import RunFolder, now
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.models.card import ModelCard, Parent
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.report.errors import table
from advkit.report.figures.training import write_curves
from advkit.report.outcome import Outcome, Picture
from advkit.reuse.classifier import PARTS, from_scratch, layer_rates, pretrained
from advkit.reuse.settings import FineTuning as Config
from advkit.reuse.tested import errors, facts, threat_of
from advkit.training.export import export, known_as, model_file, store_name
from advkit.training.extra import load_extra
from advkit.training.loop import fit
from advkit.training.objectives.adversarial import Standard
from advkit.training.trainer import Trained

GROUP = "Classifiers"
EXAMPLE = "advkit finetune --model digits-conv-gan-discriminator --labels 100 --out clf.pt"


def run(config: Config, context: Context) -> Outcome:
    """Makes a classifier of a discriminator or a VAE; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    file = model_file(context)
    source = _source(config.model)
    train, test = (load_data(config.data, split, root=context.data_dir) for split in ("train", "test"))
    model = pretrained(source, train, config.seed)
    threat = threat_of(config.norm, config.eps, model, test)
    labelled = train
    if config.labels != "all":
        labelled = train.take(train.balanced(config.labels, config.label_set))
    extra = load_extra(config, labelled, context.data_dir)
    part = source.card.architecture.removesuffix("-discriminator")
    name = store_name(config.name, train.name, part, "classifier")
    epochs = config.updates(len(labelled)) // config.batches(len(labelled))
    config = config.model_copy(update={"epochs": epochs, "name": name})
    if context.dry_run:
        return _plan(config, model, labelled)
    folder = None if file else context.out
    inputs = {
        "model": model.hash,
        "training images": labelled.fingerprint,
        "extra images": extra and extra.fingerprint,
        "test images": test.fingerprint,
    }
    with RunFolder.open("finetune", train.name, config, folder, inputs=inputs, resume=context.resume) as run:
        if not run.is_finished(context.progress):
            device = devices.choose(context.device)
            images = _Images(labelled, extra, test, threat)
            trained, tested = _train(config, source, model, images, run, device, context.progress)
            card = _card(config, model, source, labelled, trained, tested["fine-tuned"])
            classifier = Model(trained.model.network, card)
            title = f"{name}: accuracy on training batches"
            write_curves(run.path / "curves.png", trained.history, title=title)
            written = export(classifier, name, run, file, overwrite=context.overwrite)
            run.finish(_result(config, classifier, written, images, trained, tested))
        return _outcome(run.result(), run.path)


class _Images(NamedTuple):
    """What a classifier is trained on and judged by."""

    labelled: Data
    extra: Data | None
    test: Data
    threat: Threat | None


def _source(name: str) -> Model:
    """What is reused.

    Raises:
        ModelError: there is no such model, or it is neither a discriminator nor a VAE.
    """
    try:
        return load_model(name, role="discriminator")
    except ModelError as fault:
        try:
            return load_model(name, role="vae")
        except ModelError:
            raise fault from None


def _train(
    config: Config,
    source: Model,
    model: Model,
    images: _Images,
    run: RunFolder,
    device: torch.device,
    progress: Progress,
) -> tuple[Trained, dict[str, dict[str, Any]]]:
    """The fine-tuned classifier, and the errors on test images of it and of the one beside it.

    The one from scratch keeps no state: after a crash it is trained again, to the same weights.
    """
    objective, part = Standard(Standard.Config()), PARTS[source.card.role]
    rates = layer_rates(model, part, config.trunk_rate, config.layer_decay)
    if config.mode == "probe":
        model.get_submodule(part).requires_grad_(False)
    trained = fit(
        model,
        config,
        images.labelled,
        extra=images.extra,
        objective=objective,
        run=run,
        device=device,
        progress=progress,
        rates=rates,
        name="fine-tuning",
    )
    tested = {"fine-tuned": errors(trained.model, images.test, images.threat, config.seed)}
    if config.scratch:
        beside = fit(
            from_scratch(source, images.labelled, config.seed),
            config,
            images.labelled,
            extra=images.extra,
            objective=objective,
            device=device,
            progress=progress,
            rates=rates,
            name="training from scratch",
        )
        tested["from scratch"] = errors(beside.model, images.test, images.threat, config.seed)
    return trained, tested


def _card(
    config: Config,
    model: Model,
    source: Model,
    labelled: Data,
    trained: Trained,
    tested: dict[str, Any],
) -> ModelCard:
    parent = Parent(relation="fine-tuned-from", hash=source.hash, name=known_as(source.hash))
    return model.card.model_copy(
        update={
            "lineage": (parent,),
            "data": labelled.facts,
            "training": {"command": "finetune", **config.model_dump(mode="json"), "step": trained.step},
            "metrics": {"test_accuracy": 1 - tested["clean"] / tested["n"]},
            "created": now(),
            "advkit": __version__,
        }
    )


def _plan(config: Config, model: Model, labelled: Data) -> Outcome:
    updates = config.updates(len(labelled)) * (2 if config.scratch else 1)
    passes = updates * min(config.batch_size, len(labelled))
    return Outcome(
        title="what would be done",
        sentences=(
            f"{config.model} as a classifier of {config.data}, {len(labelled):,} labels, "
            f"{config.mode} fine-tuning: {updates:,} updates, {passes:,} images forward and backward.",
        ),
        result={"config": config.model_dump(mode="json"), "updates": updates, "passes": passes},
    )


def _result(
    config: Config,
    model: Model,
    written: list[Path],
    images: _Images,
    trained: Trained,
    tested: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    labelled, test = images.labelled, images.test
    return {
        "schema": "advkit/fine-tuning",
        "version": 2,
        "config": config.model_dump(mode="json"),
        "model": {"name": config.name, "hash": model.hash, "files": [str(path) for path in written]},
        "card": model.card.model_dump(mode="json", by_alias=True),
        "updates": trained.step,
        "images_per_second": trained.images_per_second,
        "labels": len(labelled),
        "label_ids": None if config.labels == "all" else labelled.ids.tolist(),
        "test": {
            "data": test.facts.model_dump(),
            "n": len(test),
            "correct": {how: len(test) - row["clean"] for how, row in tested.items()},
            "attack": facts(images.threat),
            "errors": tested,
        },
    }


def _outcome(result: dict[str, Any], folder: Path) -> Outcome:
    """The outcome; the same for a finished run."""
    config, test = result["config"], result["test"]
    sentences = [
        f"In the model store as {result['model']['name']}, trained on {result['labels']:,} labels "
        f"with {result['updates']:,} updates."
    ]
    if result["label_ids"] is not None:
        sentences.append("Which labels: label_ids in result.json.")
    model = shlex.quote(result["model"]["files"][0])
    return Outcome(
        title=f"a classifier of {config['data']} from {config['model']}",
        sentences=tuple(sentences),
        tables=(table(test["errors"], test["data"]["name"], test["attack"]),),
        pictures=(Picture("curves", folder / "curves.png", "Accuracy on training batches during training."),),
        files=(*map(Path, result["model"]["files"]), folder),
        next=(
            f"advkit attack --model {model}",
            f"advkit adv-train --model {model} --out hard.pt",
            f"advkit models lineage {result['model']['name']}",
        ),
        result=result,
    )
