"""Certify l2 radii by randomized smoothing."""

from __future__ import annotations

from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.shards import ShardResult
from advkit.data.subjects import Subject
from advkit.models.card import ModelCard
from advkit.report import verification as report
from advkit.report.outcome import Outcome, planned
from advkit.report.shards import shard
from advkit.training.objective import OBJECTIVES
from advkit.training.objectives.smoothing import NoiseTraining
from advkit.verify.smoothing.certify import smoothed_subject
from advkit.verify.smoothing.result import SmoothingResult
from advkit.verify.smoothing.settings import SmoothedCertification as Config
from advkit.verify.smoothing.statistics import reach, refuse_too_few

GROUP = "Robustness"
EXAMPLE = "advkit smooth --model clf.pt --data mnist --sigma 0.5 --skip 20"
DISTRIBUTED = True


def run(config: Config, context: Context) -> Outcome:
    """Certifies radii."""
    subject = Subject.open(config, context, skip=config.skip, only_decisions=True)
    model, images = subject.model, subject.images
    sigma = config.sigma or _trained_with(config.model, model.card)
    if config.sigma is None:
        context.progress.say(f"sigma: {sigma:g}, with which {config.model} was trained")
    refuse_too_few(config.samples, config.alpha, sigma)
    config = config.model_copy(update={"sigma": sigma})
    if context.dry_run:
        passes = len(images) * (config.selection + config.samples)
        most = reach(config.samples, config.alpha, sigma)
        return planned(
            f"{model.card.architecture} on {len(images):,} images of {images.name} ({images.split}), "
            f"smoothed with sigma {sigma:g}.",
            f"{passes:,} forward passes; {config.samples:,} samples certify a radius of {most:.3f} at most.",
            n=len(images),
            sigma=sigma,
            forwards=passes,
            largest_radius=most,
        )
    with context.run_folder("smooth", images.name, config, subject.beginning) as run:

        def work() -> SmoothingResult | ShardResult:
            return smoothed_subject(subject, config, run=run, progress=context.progress)

        if config.shard is not None:
            return shard(run.once(ShardResult, work), run.path)
        result = run.once(SmoothingResult, work)
        return report.smoothing(config, result, run.path)


def _trained_with(name: str, card: ModelCard) -> float:
    """The noise of the training, from the card."""
    training = card.training
    objective = str(training.get("objective"))
    kind = OBJECTIVES.get(objective) if objective in OBJECTIVES else None
    if kind is None or not issubclass(kind, NoiseTraining):
        raise ConfigError(f"{name} has no noise level in its card; give one with --sigma")
    return validate(kind.Config, training.get("parameters", {}), f"the card of {name}").sigma
