"""Measure accuracy under common corruptions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from advkit.core.context import Context
from advkit.core.errors import DataError
from advkit.core.run_list import numbered, read
from advkit.data.corruption import refuse
from advkit.data.subjects import Subject
from advkit.evaluation.corruptions.measure import measure
from advkit.evaluation.corruptions.result import CorruptionResult
from advkit.evaluation.corruptions.settings import Corruptions as Config
from advkit.report import corruptions as report
from advkit.report.outcome import Outcome, planned

GROUP = "Robustness"
EXAMPLE = "advkit corrupt --model clf.pt --data mnist\nadvkit corrupt --model hard.pt --baseline clf.pt"


def run(config: Config, context: Context) -> Outcome:
    """Classifies images under every corruption in every severity."""
    earlier = _earlier(config.baseline)
    subject = Subject.open(config, context, only_decisions=True)
    refuse(config.corruptions, subject.images.shape)
    if context.dry_run:
        n, kinds, severities = len(subject.images), len(config.corruptions), len(config.severities)
        models = 1 + (config.baseline is not None and earlier is None)
        passes = models * n * (1 + kinds * severities)
        return planned(
            f"{subject.model.card.architecture} on {n:,} images of {subject.images.name} "
            f"({subject.images.split}), under {kinds} corruptions in {severities} severities.",
            f"{passes:,} forward passes.",
            n=n,
            forwards=passes,
        )
    inputs = subject.beginning | ({"baseline": earlier[1].model_hash} if earlier else {})
    with context.run_folder("corrupt", subject.images.name, config, inputs) as folder:

        def work() -> CorruptionResult:
            baseline = earlier
            if config.baseline is not None and baseline is None:
                context.progress.say(f"first the baseline, {config.baseline}")
                own = folder.path / "baseline"
                other = config.model_copy(update={"model": config.baseline, "baseline": None})
                found = run(other, replace(context, out=own, resume=False)).stored
                assert isinstance(found, CorruptionResult)
                baseline = config.baseline, found
            return measure(subject, config, baseline=baseline, run=folder, progress=context.progress)

        result = folder.once(CorruptionResult, work)
        pictures = report.pictures(folder.path, result, subject.model, subject.images)
        return report.corruptions(config, result, pictures, folder.path)


def _earlier(baseline: str | None) -> tuple[str, CorruptionResult] | None:
    """The name of its model and the result, if the baseline is a run; None where it is a model."""
    if baseline is None:
        return None
    path = numbered(baseline) or Path(baseline)
    try:
        return read(path).model or path.name, CorruptionResult.load(path)
    except DataError:
        if numbered(baseline):
            raise
        return None
