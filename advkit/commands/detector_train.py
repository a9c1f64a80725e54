"""Train a detector of adversarial examples."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from advkit import __version__
from advkit.attacks.perturb import make
from advkit.core import device as devices
from advkit.core.context import Context
from advkit.core.runs import RunFolder, now
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.subjects import flags, open_subjects
from advkit.defences.detector import Detect, as_detector, learner
from advkit.defences.examples import examples
from advkit.defences.settings import DetectorTraining as Config
from advkit.models.card import Parent, ThreatFacts
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.report.figures.training import write_curves
from advkit.report.outcome import Outcome, Picture, Table
from advkit.training.export import export, known_as, model_file, store_name
from advkit.training.loop import fit
from advkit.training.trainer import Trained

GROUP = "Defences"
EXAMPLE = "advkit detector-train --model clf.pt --attack pgd --out det.pt"


def run(config: Config, context: Context) -> Outcome:
    """Trains a detector; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the models, the data or the options.
    """
    file = model_file(context)
    (classifier,), (train,) = open_subjects(
        [config.model], config.data, ("train",), arch=config.arch, said=config, context=context
    )
    against = threats.choose(config.norm, config.eps, classifier, train, context.progress)
    for name in config.attack:
        make(name, against, config.parameters.get(name))  # fails now on what is wrong with it
    source = None
    if config.discriminator is not None:
        source = load_model(config.discriminator, role="discriminator")
    learning = learner(config, train, source)
    rest, held = train.limit(config.n).holdout(config.holdout)
    part = (source.card if source else learning.card).architecture.removesuffix("-discriminator")
    config = config.model_copy(
        update={
            "data": train.name if config.data is None else config.data,
            "norm": against.norm,
            "eps": against.eps,
            "name": store_name(config.name, train.name, part, "detector"),
        }
    )
    if context.dry_run:
        return _plan(config, learning, rest, held)
    folder = None if file else context.out
    inputs = {
        "classifier": classifier.hash,
        "detector": learning.hash,
        "images": rest.fingerprint,
        "held-out images": held.fingerprint,
    }
    with RunFolder.open(
        "detector-train", train.name, config, folder, inputs=inputs, resume=context.resume
    ) as run:
        if not run.is_finished(context.progress):
            learn, check = (
                examples(
                    classifier,
                    part_of,
                    against,
                    config.attack,
                    config.parameters,
                    seed=config.seed,
                    file=run.path / name,
                    progress=context.progress,
                )
                for part_of, name in ((rest, "adversarial.npz"), (held, "adversarial-held.npz"))
            )
            trained = fit(
                learning,
                config,
                learn,
                check,
                objective=Detect(learn),
                run=run,
                device=devices.choose(context.device),
                progress=context.progress,
                name="training the detector",
            )
            title = f"{config.name}: clean against adversarial"
            write_curves(run.path / "curves.png", trained.history, title=title)
            model = _made(config, trained, classifier, source, train, against)
            written = export(model, config.name or "", run, file, overwrite=context.overwrite)
            run.finish(_result(config, model, written, trained, learn, check))
        return _outcome(run.result(), run.path, config)


def _made(
    config: Config,
    trained: Trained,
    classifier: Model,
    source: Model | None,
    train: Data,
    against: Threat,
) -> Model:
    """The detector with its card."""
    model, digest = as_detector(trained.best), classifier.hash
    lineage = [Parent(relation="trained-against", hash=digest, name=known_as(digest))]
    if source is not None:
        lineage.append(Parent(relation="fine-tuned-from", hash=source.hash, name=known_as(source.hash)))
    card = model.card.model_copy(
        update={
            "lineage": tuple(lineage),
            "data": train.facts,
            "threat": ThreatFacts(norm=against.norm, eps=against.eps),
            "training": {"command": "detector-train", **config.model_dump(mode="json"), "step": trained.step},
            "metrics": {"held_out_accuracy": trained.scores["clean"]},
            "created": now(),
            "advkit": __version__,
        }
    )
    return Model(model.network, card).eval()


def _plan(config: Config, learning: Model, rest: Data, held: Data) -> Outcome:
    most = len(rest) * (1 + len(config.attack))
    updates = config.updates(most)
    return Outcome(
        title="what would be done",
        sentences=(
            f"{', '.join(config.attack)} on {len(rest):,} training images and {len(held):,} held-out ones of "
            f"{config.data}; {learning.card.architecture} learns to tell them from clean ones, "
            f"{updates:,} updates at most.",
            f"In the model store as {config.name}.",
        ),
        result={"images": len(rest), "held": len(held), "updates": updates},
    )


def _result(
    config: Config, model: Model, written: list[Path], trained: Trained, learn: Data, check: Data
) -> dict[str, Any]:
    return {
        "schema": "advkit/detector",
        "version": 1,
        "config": config.model_dump(mode="json"),
        "model": {"name": config.name, "hash": model.hash, "files": [str(path) for path in written]},
        "card": model.card.model_dump(mode="json", by_alias=True),
        "kept_step": trained.step,
        "images_per_second": trained.images_per_second,
        "learnt": learn.labels.bincount(minlength=2).tolist(),
        "held_out": check.labels.bincount(minlength=2).tolist(),
        "held_out_accuracy": trained.scores["clean"],
    }


def _outcome(result: dict[str, Any], folder: Path, config: Config) -> Outcome:
    """The outcome; the same for a finished run."""
    rows = tuple(
        (name, f"{clean:,}", f"{adversarial:,}")
        for name, (clean, adversarial) in (
            ("learnt", result["learnt"]),
            ("held out", result["held_out"]),
        )
    )
    subject = flags([config.model], config.data or "", arch=config.arch, said=config)
    budget = f"--norm {config.norm} --eps {config.eps:.4g}"
    detector = shlex.quote(result["model"]["files"][0])
    return Outcome(
        title=f"a detector for {config.model}",
        sentences=(
            f"Of the held-out images, clean ones and non-adaptive adversarial examples, "
            f"{result['held_out_accuracy']:.1%} are classified correctly.",
            "That does not measure robustness: detector-eval runs adaptive attacks.",
            f"In the model store as {result['model']['name']}.",
        ),
        tables=(Table("images", ("", "clean", "adversarial"), rows),),
        pictures=(Picture("curves", folder / "curves.png", "Accuracy during training."),),
        files=(*map(Path, result["model"]["files"]), folder),
        next=(
            f"advkit detector-eval {subject} --detector {detector} {budget}",
            f"advkit models lineage {result['model']['name']}",
        ),
        result=result,
    )
