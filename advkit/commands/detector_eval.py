"""Evaluate a detector under adaptive attacks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import make
from advkit.core import images
from advkit.core.context import Context
from advkit.core.runs import RunFolder
from advkit.core.stats import accuracy
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.subjects import flags, open_subjects
from advkit.defences.detect import detect, refuse_misfit
from advkit.defences.evade import adaptive_attacks
from advkit.defences.non_adaptive import attacks_of
from advkit.defences.result import DetectionResult
from advkit.defences.settings import Detection as Config
from advkit.defences.threshold import divided, threshold
from advkit.models.load import load_model
from advkit.report.outcome import Outcome, Picture, Table

GROUP = "Defences"
EXAMPLE = "advkit detector-eval --model clf.pt --detector det.pt --norm linf --eps 0.15"

COLUMNS = 20
"""Images across the picture."""
GRID = "evading.png"


def run(config: Config, context: Context) -> Outcome:
    """Evaluates a detector; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the models, the data or the options.
    """
    (classifier,), (test,) = open_subjects(
        [config.model], config.data, ("test",), arch=config.arch, said=config, context=context
    )
    detector = load_model(config.detector, role="detector", device=context.device)
    refuse_misfit(classifier, detector, test)
    against = threats.choose(config.norm, config.eps, classifier, test, context.progress)
    judged, held = divided(test, config.held, config.n)
    for rate in config.rates:
        threshold(torch.zeros(len(held)), rate)  # fails now on too few images
    config = config.on(test.name, against)
    attacks = attacks_of(config, classifier, test, against)
    if context.dry_run:
        return _plan(config, attacks, judged, held, against)
    inputs = {"classifier": classifier.hash, "detector": detector.hash, "images": test.fingerprint}
    with RunFolder.open(
        "detector-eval", test.name, config, context.out, inputs=inputs, resume=context.resume
    ) as run:

        def work() -> DetectionResult:
            result, evading = detect(
                classifier,
                detector,
                judged,
                held,
                against,
                config,
                folder=run.path,
                progress=context.progress,
            )
            _draw(run.path / GRID, judged, evading)
            return result

        result = run.once(DetectionResult, work, context.progress)
        return _outcome(config, result, run.path)


def _draw(path: Path, data: Data, evading: Mapping[int, Tensor]) -> None:
    """Originals, and below each the image that fools both networks."""
    rows = sorted(evading)[:COLUMNS]
    if rows:
        clean, _ = data.batch(torch.tensor(rows))
        images.write_grid(path, torch.cat([clean, torch.stack([evading[row] for row in rows])]), len(rows))


def _plan(config: Config, attacks: Sequence[Stage], judged: Data, held: Data, against: Threat) -> Outcome:
    plan = adaptive_attacks(attacks, config.detector_weights)
    made = [make(one.stage.attack, against, one.stage.parameters) for one in plan]
    rows = tuple(
        (one.name, str(attack.steps), str(attack.starts * max(attack.targets, 1)))
        for one, attack in zip(plan, made, strict=True)
    )
    return Outcome(
        title="what would be done",
        sentences=(
            f"{len(judged):,} test images of {judged.name}, {against}; thresholds fixed on "
            f"{len(held):,} others, for false-positive rates of {', '.join(f'{r:g}' for r in config.rates)}.",
            "At each threshold these attacks are adaptive; they also run once without the detector.",
        ),
        tables=(Table("attacks", ("stage", "steps", "starts and targets"), rows),),
        result={"n": len(judged), "held": len(held), "stages": [one.name for one in plan]},
    )


def _outcome(config: Config, result: DetectionResult, folder: Path) -> Outcome:
    n = result.n
    points = [
        (
            f"{100 * point.rate:g} %",
            accuracy(point.adaptive, n),
            accuracy(point.unaware, n),
            accuracy(point.passed, n),
            accuracy(point.flagged_clean, n),
        )
        for point in result.points
    ]
    points.append(("no detector", "", accuracy(result.bare, n), accuracy(result.clean_correct, n), ""))
    columns = (
        "false positives",
        "adaptive attack",
        "non-adaptive attack",
        "clean: correct and passed",
        "clean: flagged",
    )
    sentences = [result.sentence]
    first = result.points[0]
    if first.adaptive < first.unaware:
        sentences.append(
            "Only the adaptive attack measures the detector; its figure is an upper bound, and a stronger "
            "attack could lower it."
        )
    threat = f"{result.threat.norm} eps {result.threat.eps:.4g}"
    subject = flags([config.model], config.data or "", arch=config.arch, said=config)
    budget = f"--norm {config.norm} --eps {config.eps:.4g}"
    more = f"advkit detector-eval {subject} --detector {shlex.quote(config.detector)} {budget}"
    picture = folder / GRID
    caption = "Test images, and below each one that is misclassified and not flagged."
    return Outcome(
        title=f"the detector {config.detector} in front of {config.model}",
        sentences=tuple(sentences),
        tables=(
            Table(f"correct or flagged, {threat}, n = {n:,} [95 % interval]", columns, tuple(points)),
            _knowing(result),
            _unaware(result),
        ),
        pictures=(Picture("images that evade both", picture, caption),) if picture.exists() else (),
        files=(folder,),
        next=(
            f"{more} --detector-weights 0.03,0.1,0.3,1 --set parameters.square.queries=20000",
            f"advkit attack {subject} {budget}",
        ),
        result=result.as_values(),
    )


def _knowing(result: DetectionResult) -> Table:
    rows = tuple(
        (f"{100 * point.rate:g} %", stage.name, f"{stage.attacked:,}", f"{stage.broken:,}")
        for point in result.points
        for stage in point.stages
    )
    return Table("adaptive attacks", ("false positives", "attack", "attacked", "successful"), rows)


def _unaware(result: DetectionResult) -> Table:
    rates = tuple(f"flagged at {100 * point.rate:g} %" for point in result.points)
    rows = tuple(
        (
            one.name,
            f"{one.fooled:,}",
            *(accuracy(point.detected[at], one.fooled) if one.fooled else "" for point in result.points),
        )
        for at, one in enumerate(result.attacks)
    )
    return Table("non-adaptive attacks", ("attack", "examples", *rates), rows)
