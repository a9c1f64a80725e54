"""Measure robust accuracy under strong attacks."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from pathlib import Path

import torch

from advkit.attacks.perturb import device_of, make
from advkit.core import distributed
from advkit.core.context import Context
from advkit.core.runs import RunFolder
from advkit.core.stats import accuracy
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.data.subjects import learned
from advkit.evaluation.adversarial import Adversarial
from advkit.evaluation.evaluate import evaluate, plan
from advkit.evaluation.result import EvaluationResult
from advkit.evaluation.save import place_to_save, save
from advkit.evaluation.settings import Evaluation as Config
from advkit.models.bpda import straight_through
from advkit.models.foreign_settings import ForeignModel
from advkit.models.load import load_model
from advkit.models.model import Model, evaluation_mode
from advkit.report.classes import by_class
from advkit.report.figures.evaluation import nearest, write_examples
from advkit.report.outcome import Outcome, Picture, Table, check_threshold
from advkit.verify.bounds.read import read

GROUP = "Robustness"
EXAMPLE = "advkit attack --model clf.pt --norm linf --eps 0.15 --attack pgd,apgd-ce"
DISTRIBUTED = True


def run(config: Config, context: Context) -> Outcome:
    """Attacks a classifier and reports its robust accuracy; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    kept = place_to_save(config, overwrite=context.overwrite)
    data = load_data(config.data, config.split, root=context.data_dir) if config.data else None
    model = load_model(
        config.model,
        role="classifier",
        classes=data.classes if data and data.classes_known else None,
        arch=config.arch,
        **config.said | {"shape": config.shape or (data.shape if data else None)},
        device=context.device,
    )
    data = data or _data(config, context, model)
    against = threats.choose(config.norm, config.eps, model, data, context.progress)
    if context.dry_run:
        return _plan(config, model, data, against)
    images = data.limit(config.n)
    inputs = {"model": model.hash, "images": images.fingerprint}
    other = None
    if config.surrogate is not None:
        other = load_model(config.surrogate, role="classifier", shape=data.shape, device=context.device)
        inputs["surrogate"] = other.hash
    with RunFolder.open(
        "attack", data.name, config.identity, context.out, inputs=inputs, resume=context.resume
    ) as run:
        result = run.once(
            EvaluationResult,
            lambda: evaluate(
                model,
                data,
                against,
                config.attack,
                parameters=config.parameters,
                seed=config.seed,
                n=config.n,
                batch_size=config.batch_size,
                precision=config.precision,
                budget=config.budget,
                eight_bit=config.eight_bit,
                bpda=config.bpda,
                surrogate=other,
                allow_random=config.allow_random,
                certify=config.certify,
                run=run,
                progress=context.progress,
            ),
            context.progress,
        )
        if distributed.rank() > 0:  # the first process draws and writes for all
            return _outcome(config, result, images, (), (run.path,))
        adversarial = Adversarial(run.path, images, result.verdicts)
        pictures = _pictures(run.path, result, model, images, adversarial)
        if kept is not None:
            save(kept, images, adversarial, result)
        return _outcome(config, result, images, pictures, (*([kept] if kept else []), run.path))


def _data(config: Config, context: Context, model: Model) -> Data:
    """The data set that the model was trained on, from its card."""
    name = learned(config.model, model.card)
    context.progress.say(f"data: {name} ({config.split}), what the model was trained on")
    return load_data(name, config.split, root=context.data_dir)


def _plan(config: Config, model: Model, data: Data, against: Threat) -> Outcome:
    images = data.limit(config.n)
    count = len(images)
    if config.bpda:
        few, _ = images.batch(torch.arange(min(8, count)), device_of(model))
        straight_through(model, config.bpda, few)
    if config.certify:
        read(model)  # fails now on a layer that cannot be bounded
    classes = model.card.classes or len(data.class_names)
    rows = []
    for stage in plan(config.attack, against, classes, config.parameters):
        made = make(stage.attack, against, stage.parameters)
        rows_each = made.starts * max(1, min(made.targets, classes - 1))
        forwards = f"{(made.steps + 1) * rows_each * count:,}"  # one more to confirm
        rows.append(
            (
                stage.name,
                stage.attack,
                str(made.steps),
                str(rows_each),
                "unknown" if made.single_image else forwards,
            )
        )
    return Outcome(
        title="what would be done",
        sentences=(
            f"{model.card.architecture} on {count} images of {data.name} ({data.split}), {against}.",
            "An image is not attacked again once it is misclassified, so this is the largest possible cost.",
        ),
        tables=(
            Table("attacks", ("stage", "attack", "steps", "starts", "forward passes at most"), tuple(rows)),
        ),
        result={"n": count, "threat": against.model_dump(), "attacks": [row[0] for row in rows]},
    )


def _pictures(
    folder: Path, result: EvaluationResult, model: Model, data: Data, adversarial: Adversarial
) -> tuple[Picture, ...]:
    shown = nearest(result)
    if not shown:
        return ()
    places = {sample: index for index, sample in enumerate(data.ids.tolist())}
    examples = adversarial[torch.tensor([places[verdict.id] for verdict in shown])]
    with torch.no_grad(), evaluation_mode(model):
        said = model(examples.to(device_of(model))).argmax(1).tolist()
    path = folder / "examples.png"
    write_examples(path, shown, data, examples, said)
    caption = "The adversarial examples with the smallest perturbations: true class and predicted class."
    return (Picture("adversarial examples", path, caption),)


def _outcome(
    config: Config,
    result: EvaluationResult,
    images: Data,
    pictures: tuple[Picture, ...],
    written: tuple[Path, ...],
) -> Outcome:
    n = result.n
    rows = [("none (clean)", "", "", accuracy(result.clean_correct, n), f"{n:,}")]
    rows += [
        (
            f"{stage.name} (on the surrogate)" if stage.transferred else stage.name,
            f"{stage.attacked:,}",
            f"{stage.broken:,}",
            accuracy(stage.correct_after, n),
            f"{stage.forwards + stage.backwards:,}",
        )
        for stage in result.stages
    ]
    columns = ("attack", "attacked", "misclassified", "robust accuracy [95 % interval]", "passes")
    sentences = [*(f"Note: {note}." for note in result.notes), result.sentence]
    sentences.append(result.trust)
    if result.status == "partial":
        sentences.append(f"Partial: {n} images only.")
    passed, said = check_threshold(config.min_robust, "robust accuracy", result.robust_accuracy)
    sentences += said
    return Outcome(
        title=f"attack on {config.model}",
        sentences=tuple(sentences),
        warning="" if result.trusted else result.trust,
        tables=(
            Table(f"{result.threat.norm} eps {result.threat.eps:.4g}, n = {n:,}", columns, tuple(rows)),
            *_sides(result),
            *_checks(result),
            by_class(result, images.class_names),
        ),
        pictures=pictures,
        files=written,
        next=_next(config, result),
        result=result.as_values(),
        passed=passed,
    )


def _sides(result: EvaluationResult) -> Iterator[Table]:
    """Lower and upper bound of robust accuracy."""
    if result.certified_correct is None:
        return
    n, lower, upper = result.n, result.certified_correct, result.robust_correct
    rows = (
        ("lower bound (certified)", f"{lower:,}", accuracy(lower, n)),
        ("upper bound (attacked)", f"{upper:,}", accuracy(upper, n)),
        ("undecided", f"{upper - lower:,}", accuracy(upper - lower, n)),
    )
    yield Table("bounds of robust accuracy", ("", "images", "share [95 % interval]"), rows)


def _checks(result: EvaluationResult) -> Iterator[Table]:
    """The sanity checks: those that failed, and those that passed."""
    doubts = tuple((c.name, c.detail, c.remedy) for c in result.checks if c.verdict == "doubt")
    if doubts:
        yield Table("reasons for doubt", ("check", "found", "what to do"), doubts)
    rest = tuple((c.name, c.detail) for c in result.checks if c.verdict == "ok")
    if rest:
        yield Table("checks that raise no doubt", ("check", "found"), rest)


def _next(config: Config, result: EvaluationResult) -> tuple[str, ...]:
    threat = result.threat
    subject = f"--model {shlex.quote(config.model)}"
    foreign = {"arch": config.arch, **config.said}
    usual = {"arch": None, **ForeignModel().said}
    for name, value in {"data": config.data, **foreign}.items():
        if value is not None and value != usual.get(name):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else value
            subject += f" --{name.replace('_', '-')}={shlex.quote(text)}"
    proofs = " --certify" if config.certify else ""
    here = f"{subject} --norm {threat.norm} --eps {threat.eps:.4g}"
    through = f" --bpda {','.join(config.bpda)}" if config.bpda else ""
    remedies = dict.fromkeys(check.flags for check in result.checks if check.flags)
    if remedies:
        same = "" if config.attack == ("cascade",) else f" --attack {','.join(config.attack)}"
        return tuple(
            f"advkit attack {here}{'' if '--bpda' in flags else through}"
            f"{'' if '--attack' in flags else same}{proofs} {flags}"
            for flags in remedies
        )
    numbered = (f"hard-{number}.pt" for number in itertools.count(2))
    free = next(name for name in itertools.chain(["hard.pt"], numbered) if not Path(name).exists())
    return (
        f"advkit adv-train {here} --out {free}",
        f"advkit attack {subject}{through} --norm {threat.norm} --eps {threat.eps / 2:.3g}",
        f"advkit attack {subject}{through} --attack autoattack",
    )
