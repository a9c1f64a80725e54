"""Measure robust accuracy under strong attacks."""

from __future__ import annotations

import torch

from advkit.attacks.perturb import device_of, make
from advkit.core import distributed
from advkit.core.config import keywords
from advkit.core.context import Context
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.subjects import open_subjects
from advkit.evaluation.adversarial import Adversarial
from advkit.evaluation.evaluate import evaluate, plan
from advkit.evaluation.result import EvaluationResult
from advkit.evaluation.save import place_to_save, save
from advkit.evaluation.settings import Evaluation as Config
from advkit.models.bpda import straight_through
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.report import evaluation as report
from advkit.report.outcome import Outcome, Table, planned
from advkit.verify.bounds.read import read

GROUP = "Robustness"
EXAMPLE = "advkit attack --model clf.pt --norm linf --eps 0.15 --attack pgd,apgd-ce"
DISTRIBUTED = True


def run(config: Config, context: Context) -> Outcome:
    """Attacks a classifier and reports its robust accuracy."""
    kept = place_to_save(config, overwrite=context.overwrite)
    (model,), (data,) = open_subjects(config, context, config.split, inspect=False)
    against = threats.choose(config.norm, config.eps, model, data, context.progress)
    images = data.limit(config.n)
    if context.dry_run:
        return _plan(config, model, images, against)
    inputs = {"model": model.hash, "images": images.fingerprint}
    other = None
    if config.surrogate is not None:
        other = load_model(config.surrogate, role="classifier", shape=data.shape, device=context.device)
        inputs["surrogate"] = other.hash
    with context.run_folder("attack", data.name, config.identity, inputs) as run:

        def work() -> EvaluationResult:
            given = keywords(config, evaluate) | {"surrogate": other}
            return evaluate(model, data, against, config.attack, **given, run=run, progress=context.progress)

        result = run.once(EvaluationResult, work)
        if distributed.rank() > 0:  # the first process draws and writes for all
            return report.attack(config, result, images, (), (run.path,))
        adversarial = Adversarial(run.path, images, result.verdicts)
        pictures = report.nearest(run.path, result, model, images, adversarial)
        if kept is not None:
            save(kept, images, adversarial, result)
        return report.attack(config, result, images, pictures, (*([kept] if kept else []), run.path))


def _plan(config: Config, model: Model, images: Data, against: Threat) -> Outcome:
    count = len(images)
    if config.bpda:
        few, _ = images.batch(torch.arange(min(8, count)), device_of(model))
        straight_through(model, config.bpda, few)
    if config.certify:
        read(model)  # fails now on a layer that cannot be bounded
    classes = model.card.classes or len(images.class_names)
    rows = []
    for stage in plan(config.attack, against, classes, config.parameters):
        made = make(stage.attack, against, stage.parameters)
        each = made.starts * max(1, min(made.targets, classes - 1))
        forwards = f"{(made.steps + 1) * each * count:,}"  # one more to confirm
        cost = "unknown" if made.single_image else forwards
        rows.append((stage.name, stage.attack, str(made.steps), str(each), cost))
    return planned(
        f"{model.card.architecture} on {count} images of {images.name} ({images.split}), {against}.",
        "An image is not attacked again once it is misclassified, so this is the largest possible cost.",
        table=Table("attacks", ("stage", "attack", "steps", "starts", "forward passes at most"), tuple(rows)),
        n=count,
        threat=against.model_dump(),
        attacks=[row[0] for row in rows],
    )
