"""Train a perturbation generator (AdvGAN)."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import torch

from advkit import __version__
from advkit.attacks.perturb import device_of
from advkit.core import rng
from advkit.core.context import Context
from advkit.core.runs import RunFolder, environment, now
from advkit.core.stats import accuracy
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.subjects import flags, open_subjects
from advkit.models.card import ModelCard, Parent, ThreatFacts
from advkit.models.model import Model, evaluation_mode
from advkit.models.network import numbers
from advkit.report.figures.advgan import write_curves
from advkit.report.figures.universal import write_pairs
from advkit.report.outcome import Outcome, Picture, Table
from advkit.trained_attacks.generators.game import GENERATOR, AdvGanGame
from advkit.trained_attacks.generators.judge import attackable, generate, hits
from advkit.trained_attacks.generators.make import make_generator, refuse_norm
from advkit.trained_attacks.generators.result import AdvGanResult
from advkit.trained_attacks.generators.settings import AdvGanSettings
from advkit.trained_attacks.generators.settings import AdvGanTraining as Config
from advkit.trained_attacks.universal.judge import random_subset
from advkit.trained_attacks.universal.make import class_number
from advkit.training.export import export, known_as, model_file, store_name

GROUP = "Attacks"
EXAMPLE = "advkit advgan-train --model clf.pt --norm linf --eps 0.15"

SHOWN = 8


def run(config: Config, context: Context) -> Outcome:
    """Trains a perturbation generator and evaluates it; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    file = model_file(context)
    (model,), (learn, whole) = open_subjects(
        [config.model], config.data, ("train", "test"), arch=config.arch, said=config, context=context
    )
    target = None if config.target is None else class_number(config.target, learn)
    against = threats.choose(config.norm, config.eps, model, learn, context.progress)
    refuse_norm(against)
    test = random_subset(whole, config.n, config.seed)
    name = store_name(config.name, learn.name, "advgan")
    config = config.model_copy(update={"norm": against.norm, "eps": against.eps, "name": name})
    # Fails before there is a folder.
    game = AdvGanGame(config, against, learn.shape, target, torch.device("cpu"))
    if context.dry_run:
        return _plan(config, game, learn, test, against)
    folder = None if file else context.out
    inputs = {"model": model.hash, "training images": learn.fingerprint, "test images": test.fingerprint}
    with RunFolder.open(
        "advgan-train", learn.name, config, folder, inputs=inputs, resume=context.resume
    ) as run:

        def work() -> AdvGanResult:
            begun = time.perf_counter()
            found = make_generator(
                model, learn, test, against, target, config, run=run, progress=context.progress
            )
            generator = Model(found.generator, _card(config, model, learn, against, found.figures["rate"]))
            title = f"{name} against {Path(config.model).name}"
            write_curves(run.path / "curves.png", run.history(), title=title, judged=config.gan_weight > 0)
            _examples(run.path / "examples.png", config, generator, model, test, against, target)
            written = export(generator, name, run, file, overwrite=context.overwrite)
            files = tuple(map(str, written))
            result = AdvGanResult(
                model={"name": name, "hash": generator.hash, "files": files, "card": generator.card},
                victim={"name": config.model, "hash": model.hash},
                test=test.facts,
                settings=config.model_dump(mode="json", include=set(AdvGanSettings.model_fields)),
                threat=ThreatFacts(norm=against.norm, eps=against.eps),
                target=target,
                target_name="" if target is None else learn.class_names[target],
                seconds=time.perf_counter() - begun,
                environment=environment(),
                **found.figures,
            )
            return result

        result = run.once(AdvGanResult, work, context.progress)
        return _outcome(config, result, run.path)


def _card(config: Config, victim: Model, learn: Data, against: Threat, rate: float) -> ModelCard:
    digest = victim.hash
    return ModelCard(
        role="perturbation-generator",
        architecture=GENERATOR,
        config=config.generator,
        shape=learn.shape,
        lineage=(Parent(relation="trained-against", hash=digest, name=known_as(digest)),),
        data=learn.facts,
        threat=ThreatFacts(norm=against.norm, eps=against.eps),
        training={"command": "advgan-train", **config.model_dump(mode="json"), "step": config.steps},
        metrics={"success_rate": rate},
        created=now(),
        advkit=__version__,
    )


def _examples(
    path: Path,
    config: Config,
    generator: Model,
    model: Model,
    test: Data,
    against: Threat,
    target: int | None,
) -> None:
    """Random test images that are classified correctly, whether or not the attack succeeded."""
    with evaluation_mode(model):
        judged = attackable(model, test, target)
        few = judged.take(rng.permutation(config.seed, "examples", len(judged))[:SHOWN])
        x, _ = generate(generator, few, against, device_of(model))
        met, said = hits(model, x, few, against, target)
    x0, labels = few.batch(torch.arange(len(few)))
    changed = 0.5 + (x - x0) / (2 * (x - x0).abs().max().clamp(min=1e-12))
    names = few.class_names
    above, below = ([names[label] for label in each.tolist()] for each in (labels, said))
    write_pairs(path, (x0, changed, x), above, below, met.tolist())


def _plan(config: Config, game: AdvGanGame, learn: Data, test: Data, against: Threat) -> Outcome:
    passes = config.steps * min(config.batch_size, len(learn))
    rows = [("classifier", "", f"{passes:,}", f"{passes:,}")]
    for name, network in game.networks.items():
        each = passes if name == "generator" else 3 * passes
        rows.append((name, f"{numbers(network):,}", f"{each:,}", f"{each:,}"))
    return Outcome(
        title="what would be done",
        sentences=(
            f"A generator of {against} changes, trained on those of {len(learn):,} images of {learn.name} "
            f"that {config.model} classifies correctly, evaluated on those of {len(test):,} test images.",
            f"In the model store as {config.name}.",
        ),
        tables=(Table("cost", ("network", "parameters", "images forward", "images backward"), tuple(rows)),),
        result={"threat": against.model_dump(), "forwards": passes, "backwards": passes},
    )


def _outcome(config: Config, result: AdvGanResult, folder: Path) -> Outcome:
    threat, judged = result.threat, result.judged
    sentences = [result.sentence]
    if result.becomes and result.target is None:
        most, count = next(iter(result.becomes.items()))
        sentences.append(f"Of these, {100 * count / result.hits:.0f} % become {most}.")
    sentences.append(
        f"In the model store as {result.model.name}; it perturbs {result.made_per_second:,.0f} images/s."
    )
    if (box := result.black_box) is not None:
        origins = ", ".join(f"{count:,} {origin}" for origin, count in box.asked.items())
        sentences.append(
            f"The classifier was queried {box.queries:,} of {box.limit:,} times ({origins}) and returned "
            f"{box.answers}; the substitute agrees on {accuracy(box.agreed, result.n)} of the test images."
        )
    aim = "misclassified" if result.target is None else f"classified as {result.target_name}"
    rows = (
        ("generator", accuracy(result.hits, judged), f"{judged:,}"),
        ("random noise of the same size", accuracy(result.hits_by_noise, judged), f"{judged:,}"),
    )
    subject = flags([config.model], result.train.name, arch=config.arch, said=config)
    budget = f"--norm {threat.norm} --eps {threat.eps:.4g}"
    return Outcome(
        title=f"perturbation generator, {threat.norm} eps {threat.eps:.4g}",
        sentences=tuple(sentences),
        tables=(
            Table(
                f"test images of {result.test.name} that are classified correctly",
                ("", f"{aim} [95 % interval]", "n"),
                rows,
            ),
        ),
        pictures=(
            Picture(
                "examples",
                folder / "examples.png",
                "Random test images, the perturbation (grey is 0), and the perturbed images.",
            ),
            Picture("curves", folder / "curves.png", "Success during training."),
        ),
        files=(*map(Path, result.model.files), folder),
        next=(
            f"advkit attack {subject} {budget} --attack {shlex.quote(f'advgan:{result.model.name}')}",
            f"advkit attack {subject} {budget} --attack {shlex.quote(f'pgd,advgan:{result.model.name}')}",
            f"advkit models lineage {result.model.name}",
        ),
        result=result.as_values(),
    )
