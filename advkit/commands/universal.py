"""Train a universal adversarial perturbation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from advkit.attacks.perturb import device_of
from advkit.core import files, rng
from advkit.core.context import Context
from advkit.core.runs import RunFolder
from advkit.core.stats import accuracy
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.subjects import flags, open_subjects
from advkit.models.model import Model
from advkit.report.figures.universal import write_pairs, write_perturbation
from advkit.report.outcome import Outcome, Picture, Table
from advkit.trained_attacks.universal.change import Perturbation
from advkit.trained_attacks.universal.export import export, requested_files, run_identity
from advkit.trained_attacks.universal.judge import predicted_classes, random_subset
from advkit.trained_attacks.universal.make import (
    all_in_evaluation_mode,
    class_number,
    make_perturbation,
    refuse_norm,
)
from advkit.trained_attacks.universal.result import PerturbationJudged, PerturbationResult
from advkit.trained_attacks.universal.settings import PerturbationTraining as Config

GROUP = "Attacks"
EXAMPLE = "advkit universal --model clf.pt --norm linf --eps 0.1"

SHOWN = 8


def run(config: Config, context: Context) -> Outcome:
    """Trains a universal perturbation and evaluates it; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the models, the data or the options.
    """
    wanted = requested_files(context)
    names = (*config.model, *config.transfer)
    models, (learn, whole) = open_subjects(
        names, config.data, ("train", "test"), arch=config.arch, said=config, context=context
    )
    if config.target is not None:
        class_number(config.target, learn)  # fails now on a class that is not there
    against = threats.choose(config.norm, config.eps, models[0], learn, context.progress)
    refuse_norm(against)
    trained_on, test = models[: len(config.model)], random_subset(whole, config.n, config.seed)
    config = config.model_copy(update={"norm": against.norm, "eps": against.eps})
    if context.dry_run:
        return _plan(config, models, learn, test, against)
    folder = None if wanted else context.out
    inputs = run_identity(models, len(trained_on), learn, test)
    with RunFolder.open("universal", learn.name, config, folder, inputs=inputs, resume=context.resume) as run:

        def work() -> PerturbationResult:
            result = make_perturbation(
                trained_on,
                models[len(trained_on) :],
                names,
                learn,
                test,
                against,
                config,
                run=run,
                progress=context.progress,
            )
            change = result.perturbation
            assert change is not None
            facts = {"norm": against.norm, "eps": against.eps}
            files.write_arrays(run.path / "universal.npz", perturbation=change.numpy(), **facts)
            write_perturbation(run.path / "universal.png", change)
            kind = Perturbation(against, learn.shape, config.rate)
            _examples(run.path / "examples.png", config, kind, change, trained_on[0], test, result)
            return result

        result = run.once(PerturbationResult, work, context.progress)
        export(run.path, "universal", wanted)
        return _outcome(config, result, run.path, wanted)


def _examples(
    path: Path,
    config: Config,
    kind: Perturbation,
    change: Tensor,
    model: Model,
    test: Data,
    result: PerturbationResult,
) -> None:
    """Random images, whether or not the perturbation succeeded."""
    few = test.take(rng.permutation(config.seed, "examples", len(test))[:SHOWN])
    x, labels = few.batch(torch.arange(len(few)), device_of(model))
    with all_in_evaluation_mode([model]):
        moved = kind.apply(change[None].to(x.device), x, labels)
        before, after = predicted_classes(model, x).tolist(), predicted_classes(model, moved).tolist()
    aim = result.target
    write_pairs(
        path,
        (x.cpu(), moved.cpu()),
        [few.class_names[label] for label in labels.tolist()],
        [few.class_names[answer] for answer in after],
        [now == aim if aim is not None else now != then for then, now in zip(before, after, strict=True)],
    )


def _plan(config: Config, models: list[Model], learn: Data, test: Data, against: Threat) -> Outcome:
    training = config.steps * min(config.batch_size, len(learn)) * len(config.model)
    judging = 3 * len(models) * len(test)
    return Outcome(
        title="what would be done",
        sentences=(
            f"One perturbation, {against}, trained on {len(learn):,} images of {learn.name} against "
            f"{', '.join(config.model)}, evaluated on {len(test):,} test images.",
        ),
        tables=(
            Table(
                "cost",
                ("", "images forward", "images backward"),
                (("training", f"{training:,}", f"{training:,}"), ("evaluation", f"{judging:,}", "0")),
            ),
        ),
        result={"threat": against.model_dump(), "forwards": training + judging, "backwards": training},
    )


def _outcome(config: Config, result: PerturbationResult, folder: Path, wanted: tuple[Path, ...]) -> Outcome:
    first = result.classifiers[0]
    sentences = [result.sentence]
    if first.becomes and result.target is None:
        most = next(iter(first.becomes))
        sentences.append(f"Of the images that are misclassified, {_share(first, most)} become {most}.")
    threat = result.threat
    aim = "fooled" if result.target is None else f"classified as {result.target_name}"
    columns = ("classifier", f"{aim} [95 % interval]", "random noise", "accuracy")
    pictures = (
        Picture(
            "the perturbation",
            folder / "universal.png",
            f"Grey is 0, black -{threat.eps:.3g}, white {threat.eps:.3g}."
            if threat.norm == "linf"
            else "Enlarged.",
        ),
        Picture(
            "examples", folder / "examples.png", "Random test images, without and with the perturbation."
        ),
    )
    every = flags(config.model, result.train.name, arch=config.arch, said=config)
    one = flags(config.model[:1], result.train.name, arch=config.arch, said=config)
    larger = min(1.0, 2 * threat.eps) if threat.norm == "linf" else 2 * threat.eps
    budget = f"--norm {threat.norm} --eps"
    return Outcome(
        title=f"universal perturbation, {threat.norm} eps {threat.eps:.4g}",
        sentences=tuple(sentences),
        tables=(
            Table(
                f"{first.n:,} test images of {result.test.name}",
                columns,
                tuple(_row(judged) for judged in result.classifiers),
            ),
        ),
        pictures=pictures,
        files=(*wanted, *(() if wanted else (folder / "universal.npz",)), folder),
        next=(
            f"advkit universal {every} {budget} {larger:.3g}",
            f"advkit attack {one} {budget} {threat.eps:.4g}",
        ),
        result=result.as_values(),
    )


def _share(judged: PerturbationJudged, name: str) -> str:
    return f"{100 * judged.becomes[name] / judged.fooled:.0f} %"


def _row(judged: PerturbationJudged) -> tuple[str, ...]:
    n = judged.n
    return (
        judged.label,
        accuracy(judged.hits, judged.judged) if judged.judged else "-",
        f"{100 * judged.fooled_by_random / n:.1f} %",
        f"{100 * judged.clean_correct / n:.1f} → {100 * judged.correct / n:.1f} %",
    )
