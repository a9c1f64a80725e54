"""Measure robust accuracy as a function of eps."""

from __future__ import annotations

import math

from advkit.attacks.perturb import make
from advkit.core.context import Context
from advkit.core.shards import ShardResult
from advkit.core.threat import Norm, Threat
from advkit.data.data import Data
from advkit.data.subjects import Subject
from advkit.data.threats import default_threat
from advkit.evaluation.curve.measure import measured, sizes, stages_of
from advkit.evaluation.curve.result import SecurityCurve
from advkit.evaluation.curve.settings import Curve as Config
from advkit.models.model import Model
from advkit.report import evaluation as report
from advkit.report.outcome import Outcome, Table, planned
from advkit.report.shards import shard

GROUP = "Robustness"
EXAMPLE = "advkit curve --model clf.pt --norm linf --n 300 --eps 0.05,0.1,0.15"


def run(config: Config, context: Context) -> Outcome:
    """Measures robust accuracy at every eps."""
    subject = Subject.open(config, context)
    model, images = subject.model, subject.images
    norm = config.norm
    if norm is None:
        norm = default_threat(model, images).norm
        context.progress.say(f"norm: {norm}, the default here (--norm chooses another)")
    sizes(config.eps, norm)  # before any work
    if context.dry_run:
        return _plan(config, model, images, norm)
    with context.run_folder("curve", images.name, config, subject.beginning) as run:

        def work() -> SecurityCurve | ShardResult:
            return measured(subject, config, run=run, progress=context.progress)

        if config.shard is not None:
            return shard(run.once(ShardResult, work), run.path)
        result = run.once(SecurityCurve, work).asked(config.eps)
        run.finish(result.as_values())
        return report.curve(config, result, run.path)


def _plan(config: Config, model: Model, images: Data, norm: Norm) -> Outcome:
    threat = Threat.whole(norm, math.prod(images.shape))
    classes = model.card.classes or len(images.class_names)
    rows, total = [], 0
    for stage in stages_of(norm, images, classes, config):
        made = make(stage.attack, threat, stage.parameters)
        each = made.variants(classes)
        passes = (made.steps + 1) * each * len(images)  # one more to confirm
        total += passes
        rows.append((stage.name, str(made.steps), str(each), f"{passes:,}"))
    return planned(
        f"{model.card.architecture} on {len(images):,} images of {images.name} ({images.split}), in {norm}.",
        "Every step is taken on every image that is classified correctly.",
        table=Table("attacks", ("attack", "steps", "starts", "forward passes"), tuple(rows)),
        n=len(images),
        norm=norm,
        attacks=[row[0] for row in rows],
        forwards=total,
    )
