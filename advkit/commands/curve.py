"""Measure robust accuracy as a function of eps."""

from __future__ import annotations

import math
from pathlib import Path

from advkit.attacks.perturb import make
from advkit.core.context import Context
from advkit.core.runs import RunFolder
from advkit.core.stats import accuracy
from advkit.core.threat import Norm, Threat
from advkit.data.data import Data
from advkit.data.subjects import Subject, flags
from advkit.data.threats import default_threat
from advkit.evaluation.curve.measure import measured, sizes, stages_of
from advkit.evaluation.curve.result import SecurityCurve
from advkit.evaluation.curve.scale import written
from advkit.evaluation.curve.settings import Curve as Config
from advkit.models.model import Model
from advkit.report.classes import worst
from advkit.report.figures.curve import write_curve, write_norms
from advkit.report.outcome import Outcome, Picture, Table

GROUP = "Robustness"
EXAMPLE = "advkit curve --model clf.pt --norm linf --n 300 --eps 0.05,0.1,0.15"


def run(config: Config, context: Context) -> Outcome:
    """Measures robust accuracy at every eps; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    subject = Subject.open(config, context)
    model, images = subject.model, subject.images
    norm = config.norm
    if norm is None:
        norm = default_threat(model, images).norm
        context.progress.say(f"norm: {norm}, the default here (--norm chooses another)")
    sizes(config.eps, norm)  # before any work
    if context.dry_run:
        return _plan(config, model, images, norm)
    with RunFolder.open(
        "curve", images.name, config, context.out, inputs=subject.inputs, resume=context.resume
    ) as run:
        if run.is_finished(context.progress):
            result = SecurityCurve.load(run.path).asked(config.eps)
        else:
            result = measured(subject, config, run=run, progress=context.progress)
        run.finish(result.as_values())
        return _outcome(config, result, _pictures(run.path, result), run.path)


def _plan(config: Config, model: Model, images: Data, norm: Norm) -> Outcome:
    threat = Threat.whole(norm, math.prod(images.shape))
    classes = model.card.classes or len(images.class_names)
    rows, total = [], 0
    for stage in stages_of(norm, images, classes, config):
        made = make(stage.attack, threat, stage.parameters)
        each = made.starts * max(1, min(made.targets, classes - 1))
        passes = (made.steps + 1) * each * len(images)  # one more to confirm
        total += passes
        rows.append((stage.name, str(made.steps), str(each), f"{passes:,}"))
    return Outcome(
        title="what would be done",
        sentences=(
            f"{model.card.architecture} on {len(images):,} images of {images.name} ({images.split}), "
            f"in {norm}.",
            "Every step is taken on every image that is classified correctly.",
        ),
        tables=(Table("attacks", ("attack", "steps", "starts", "forward passes"), tuple(rows)),),
        result={"n": len(images), "norm": norm, "attacks": [row[0] for row in rows], "forwards": total},
    )


def _pictures(folder: Path, result: SecurityCurve) -> tuple[Picture, ...]:
    curve = Picture(
        "security curve",
        folder / "curve.png",
        "Robust accuracy by eps (an upper bound) with its 95 % interval.",
    )
    norms = Picture(
        "minimum norms",
        folder / "norms.png",
        "Smallest perturbations found: a histogram, and for each class the median, the quartiles (box) "
        "and the range from 5 to 95 % of the images (whiskers).",
    )
    write_curve(curve.path, result)
    write_norms(norms.path, result)
    return curve, norms


def _outcome(config: Config, result: SecurityCurve, pictures: tuple[Picture, ...], folder: Path) -> Outcome:
    n = result.n
    sentences = [
        result.sentence,
        "Every robust accuracy is an upper bound: something nearer may exist. At one eps, advkit attack "
        "gives a tighter bound, and runs sanity checks on it.",
    ]
    if result.status == "partial":
        sentences.append(f"Partial: {n} images only.")
    warning = ""
    if result.unbroken:
        warning = (
            f"On {result.unbroken} of {result.clean_correct} images no adversarial example was found at any "
            "distance, although one must exist: gradients may be masked, and the curve too high."
        )
        sentences.append(warning)
    return Outcome(
        title=f"security curve of {config.model}",
        sentences=tuple(sentences),
        warning=warning,
        tables=(_points(config, result), _classes(result), _attacks(result)),
        pictures=pictures,
        files=(folder,),
        next=_next(config, result),
        result=result.as_values(),
    )


def _points(config: Config, result: SecurityCurve) -> Table:
    norm, n = result.norm, result.n
    said = {mark.eps: mark.said for mark in result.marks}
    rows = [("0", accuracy(result.clean_correct, n), "clean accuracy")]
    for point in result.points:
        remark = said.get(point.eps, "asked for" if point.eps in config.eps else "")
        rows.append((written(point.eps, norm), accuracy(point.robust_correct, n), remark))
    columns = ("eps", "robust accuracy at most [95 % interval]", "")
    return Table(f"{norm}, n = {n:,}", columns, tuple(rows))


def _classes(result: SecurityCurve) -> Table:
    rows = []
    for row in result.classes:
        place = (row.robust_correct / row.n, math.inf if row.median.value is None else row.median.value)
        said = (
            row.name,
            f"{row.n:,}",
            f"{100 * row.clean_correct / row.n:.1f} %",
            result.text(row.median),
            accuracy(row.robust_correct, row.n),
        )
        rows.append((place, said))
    shown, title = worst(rows)
    median = f"median norm{' * 255' if result.parts > 1 else ''} [95 %]"
    at = f"robust at {written(result.class_eps, result.norm)} [95 %]"
    return Table(title, ("class", "n", "clean", median, at), tuple(shown))


def _attacks(result: SecurityCurve) -> Table:
    rows = tuple(
        (
            one.name,
            f"{one.found:,} of {one.attacked:,}",
            f"{one.nearest:,}",
            "-" if one.median is None else f"{one.median * result.parts:.3g}",
            f"{one.forwards + one.backwards:,}",
        )
        for one in result.attacks
    )
    distance = f"median distance{' * 255' if result.parts > 1 else ''}"
    return Table("attacks", ("attack", "found", "nearest of all", distance, "passes"), rows)


def _next(config: Config, result: SecurityCurve) -> tuple[str, ...]:
    subject = flags([config.model], result.data.name, arch=config.arch, said=config)
    half = result.half if result.half else result.class_eps
    sizes = dict.fromkeys([f"{half:.3g}", *(written(mark.eps, result.norm) for mark in result.marks[:1])])
    other = "l2" if result.norm == "linf" else "linf"
    return (
        *(f"advkit attack {subject} --norm {result.norm} --eps {size}" for size in sizes),
        f"advkit curve {subject} --norm {other}",
    )
