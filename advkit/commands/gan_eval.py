"""Evaluate generators: FID, KID, coverage and others."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from advkit.core import device as devices
from advkit.core import images
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.progress import Progress
from advkit.data.classes import renumbered
from advkit.data.load import load_splits
from advkit.gan.evaluation.reference import Reference, chosen, measure
from advkit.gan.evaluation.result import (
    GRID_FILE,
    NEAREST_FILE,
    FigureFacts,
    GanEvaluationResult,
    Judged,
)
from advkit.gan.evaluation.settings import GanEvaluation as Config
from advkit.gan.evaluation.subject import Subject, open_subject
from advkit.gan.judge import judge
from advkit.gan.metrics.classes import shares
from advkit.gan.metrics.memorisation import neighbours
from advkit.report import gan as report
from advkit.report.outcome import Outcome, planned

GROUP = "GANs"
EXAMPLE = "advkit gan-eval --model mnist-conv-gan-ema --data mnist --n 10000"
OPERANDS = "model"
FORMERLY = ("gan-compare",)

GRID = 20
"""Rows and columns of a grid."""


def run(config: Config, context: Context) -> Outcome:
    """Measures one generator or several on the same real images."""
    names = config.model
    if len(set(names)) < len(names):
        raise ConfigError(f"a model is named twice in {', '.join(names)}; name each once")
    metrics = chosen(config.metrics)
    subjects = [open_subject(name, context.device) for name in names]
    data = config.data or _learned(subjects[0], context.progress)
    train, test = load_splits(data, context.data_dir)
    looks = judge(str(devices.choose(context.device)))
    reference = Reference(train, test, looks, n=config.n, seed=config.seed)
    for subject in subjects:
        reference.refuse_other_shape(subject.name, subject.card.shape)
    if reference.n < config.n:
        context.progress.say(
            f"n: {reference.n:,} instead of {config.n:,}, since {data} has {len(train):,} training and "
            f"{len(test):,} test images"
        )
    if context.dry_run:
        return planned(
            f"{reference.n:,} images of {', '.join(names)} beside as many test images of {data}, and for the "
            f"floor as many of the training split: {', '.join(entry.name for entry in metrics)}.",
            n=reference.n,
            metrics=[entry.name for entry in metrics],
        )
    inputs = {
        "judge": reference.judge.hash,
        "model" if len(names) == 1 else "models": [subject.hash for subject in subjects],
        "training images": train.fingerprint,
        "test images": test.fingerprint,
    }
    command = "gan-eval" if len(names) == 1 else "gan-compare"  # so that folders of 0.1.0 are still theirs
    with context.run_folder(command, train.name, config, inputs) as run:

        def work() -> GanEvaluationResult:
            floors, skipped = measure(reference.floor, metrics, "measuring real images", context.progress)
            images.write_grid(run.path / "real.png", reference.real.images[: GRID * GRID], GRID)
            judged: list[Judged] = []
            for subject in subjects:
                folder = run.path / _folder_name(subject.name, [one.folder for one in judged])
                found = _measured(subject, reference, config, folder, context.progress)
                judged.append(found[0])
                skipped |= found[1]
            return GanEvaluationResult(
                judge=reference.judge.hash,
                judge_accuracy=reference.accuracy,
                real=test.facts,
                train=train.facts,
                n=reference.n,
                asked=config.n,
                seed=config.seed,
                figures=tuple(
                    FigureFacts(**figure._asdict(), metric=entry.name, floor=floors[figure.key])
                    for entry in metrics
                    for figure in entry.facts["figures"]
                    if figure.key in floors
                ),
                skipped=skipped,
                generators=tuple(judged),
                class_names=train.class_names,
                real_histogram=tuple(reference.shares.tolist()),
            )

        return report.evaluated(run.once(GanEvaluationResult, work), run.path)


def _learned(subject: Subject, progress: Progress) -> str:
    """Its training data set, from its card."""
    if subject.card.data is None:
        raise ConfigError(f"the card of {subject.name} does not name its data set; give one with --data")
    progress.say(f"data: {subject.card.data.name}, the data set of {subject.name}")
    return subject.card.data.name


def _folder_name(name: str, taken: Sequence[str]) -> str:
    """Folder of a model's pictures, different from those that are ``taken``."""
    own = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
    while own in taken:
        own += "-again"
    return own


def _measured(
    subject: Subject, reference: Reference, config: Config, folder: Path, progress: Progress
) -> tuple[Judged, dict[str, str]]:
    drawn, asked = subject.draw(max(reference.n, GRID * GRID), config.seed, progress=progress)
    images.write_grid(folder / GRID_FILE, drawn[: GRID * GRID], GRID)
    n = reference.n
    labels = None if asked is None else renumbered(asked[:n], subject.card.labels, reference.train)
    comparison = reference.comparison(reference.feature_batch(drawn[:n], labels))
    pairs = neighbours(drawn[: GRID * GRID], comparison.train, GRID)
    images.write_grid(folder / NEAREST_FILE, torch.cat(pairs), GRID)
    task = f"measuring {shlex.quote(subject.name)}"
    values, skipped = measure(comparison, chosen(config.metrics), task, progress)
    judged = Judged(
        name=subject.name,
        hash=subject.hash,
        role=subject.card.role,
        architecture=subject.card.architecture,
        parameters=subject.parameters,
        classes=subject.classes,
        images_seen=subject.images_seen,
        training_seconds=subject.seconds,
        values=values,
        histogram=tuple(shares(comparison).tolist()) if reference.digits else (),
        folder=folder.name,
    )
    return judged, skipped
