"""Certify l2 radii by randomized smoothing."""

from __future__ import annotations

from advkit.core import distributed
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.runs import RunFolder
from advkit.core.stats import accuracy
from advkit.data.data import Data
from advkit.data.subjects import Subject, flags
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.report.figures.smoothing import write_curve
from advkit.report.outcome import Outcome, Picture, Table, check_threshold
from advkit.training.objective import OBJECTIVES
from advkit.training.objectives.noise import NoiseTraining
from advkit.verify.smoothing.certify import smoothed_subject
from advkit.verify.smoothing.result import SmoothingResult
from advkit.verify.smoothing.settings import SmoothedCertification as Config
from advkit.verify.smoothing.statistics import reach, refuse_too_few

GROUP = "Robustness"
EXAMPLE = "advkit smooth --model clf.pt --data mnist --sigma 0.5 --skip 20"
DISTRIBUTED = True

CURVE = (
    "The share of images classified correctly and certified within the radius. Each radius holds with "
    "probability 1 - alpha."
)
LOST = 0.5
"""Share of the model's own accuracy below which a warning says that smoothing cost too much."""


def run(config: Config, context: Context) -> Outcome:
    """Certifies radii; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the model, the data or the options.
    """
    subject = Subject.open(config, context, skip=config.skip, only_decisions=True)
    model, images = subject.model, subject.images
    sigma = config.sigma or _trained_with(config.model, model.card)
    if config.sigma is None:
        context.progress.say(f"sigma: {sigma:g}, with which {config.model} was trained")
    refuse_too_few(config.samples, config.alpha, sigma)
    config = config.model_copy(update={"sigma": sigma})
    if context.dry_run:
        return _plan(config, sigma, model, images)
    with RunFolder.open(
        "smooth", images.name, config, context.out, inputs=subject.inputs, resume=context.resume
    ) as folder:
        result = folder.once(
            SmoothingResult,
            lambda: smoothed_subject(subject, config, run=folder, progress=context.progress),
            context.progress,
        )
        return _outcome(config, result, folder)


def _trained_with(name: str, card: ModelCard) -> float:
    """The noise of the training, from the card."""
    training = card.training
    objective = str(training.get("objective"))
    kind = OBJECTIVES.get(objective) if objective in OBJECTIVES else None
    if kind is None or not issubclass(kind, NoiseTraining):
        raise ConfigError(f"{name} has no noise level in its card; give one with --sigma")
    return validate(kind.Config, training.get("parameters", {}), f"the card of {name}").sigma


def _plan(config: Config, sigma: float, model: Model, images: Data) -> Outcome:
    passes = len(images) * (config.selection + config.samples)
    most = reach(config.samples, config.alpha, sigma)
    return Outcome(
        title="what would be done",
        sentences=(
            f"{model.card.architecture} on {len(images):,} images of {images.name} ({images.split}), "
            f"smoothed with sigma {sigma:g}.",
            f"{passes:,} forward passes; {config.samples:,} samples certify a radius of {most:.3f} at most.",
        ),
        result={"n": len(images), "sigma": sigma, "forwards": passes, "largest_radius": most},
    )


def _outcome(config: Config, result: SmoothingResult, folder: RunFolder) -> Outcome:
    n = result.n
    path = folder.path / "curve.png"
    if distributed.rank() == 0:  # the first draws for all
        write_curve(path, result)
    sentences = [
        result.sentence,
        f"{result.samples:,} samples certify a radius of {result.largest_radius:.3f} at most; each radius "
        f"holds with probability {1 - result.alpha:g}.",
    ]
    if result.status == "partial":
        sentences.append(f"Partial: {_taken(result)}.")
    subject = flags([config.model], result.data.name, arch=config.arch, said=config)
    follow = [f"advkit attack {subject} --norm l2 --eps {result.average_radius or result.sigma:.3g}"]
    warning = ""
    if result.right < LOST * result.bare_correct:
        warning = (
            f"Without noise the model classifies {result.bare_correct:,} images correctly, smoothed "
            f"{result.right:,}: it seems not to be trained on such noise."
        )
        sentences.append(warning)
        follow = [
            f"advkit adv-train {subject} --objective noise --set parameters.sigma={result.sigma:g} "
            "--set parameters.copies=2 --set parameters.consistency=5 --out smoothed.pt"
        ]
    passed, said = check_threshold(config.min_radius, "average certified radius", result.average_radius)
    sentences += said
    rows = (
        ("correct", f"{result.right:,}", accuracy(result.right, n)),
        ("wrong", f"{result.wrong:,}", accuracy(result.wrong, n)),
        ("abstained", f"{result.abstained:,}", accuracy(result.abstained, n)),
        ("correct without noise", f"{result.bare_correct:,}", accuracy(result.bare_correct, n)),
    )
    radii = tuple(
        (f"{point.radius:.3g}", f"{point.certified:,}", accuracy(point.certified, n))
        for point in result.points
    )
    how = f"sigma {result.sigma:g}, alpha {result.alpha:g}, n = {n:,}"
    return Outcome(
        title=f"smoothing of {config.model}",
        sentences=tuple(sentences),
        tables=(
            Table(f"predictions, {how}", ("prediction", "images", "share [95 % interval]"), rows),
            Table(f"certified, {how}", ("l2 radius", "images", "certified accuracy [95 % interval]"), radii),
        ),
        pictures=(Picture("certified accuracy by radius", path, CURVE),),
        files=(folder.path,),
        next=tuple(follow),
        result=result.as_values(),
        passed=passed,
        warning=warning,
    )


def _taken(result: SmoothingResult) -> str:
    among = f", one in {result.skip}" if result.skip > 1 else ""
    return f"{result.n:,} images only{among}"
