"""The outcomes of ``detector-train``, ``detector-eval`` and ``defence-eval``, from their results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from advkit.core import images, rng
from advkit.core.stats import accuracy
from advkit.core.threat import options
from advkit.data.data import Data
from advkit.data.subjects import flags
from advkit.defences.purifier import Purifier
from advkit.defences.result import DetectionResult, DetectorResult, PurificationResult
from advkit.defences.settings import Detection, DetectorTraining, Purification
from advkit.report.figures.curves import CLASSIFIER, course
from advkit.report.outcome import Outcome, Picture, Table

COLUMNS = 20
"""Images across a picture."""
EVADING, PURIFIED = "evading.png", "purified.png"


def trained(config: DetectorTraining, result: DetectorResult, folder: Path) -> Outcome:
    """The outcome of ``advkit detector-train``."""
    counts = {"learnt": result.learnt, "held out": result.held_out}
    rows = tuple((name, f"{clean:,}", f"{adversarial:,}") for name, (clean, adversarial) in counts.items())
    held = sum(result.held_out)
    subject = f"{flags(config, config.data)} --detector {shlex.quote(result.model.files[0])}"
    return Outcome(
        title=f"a detector for {config.model}",
        sentences=(
            f"Accuracy on {held:,} held-out images, clean ones and non-adaptive adversarial examples: "
            f"{accuracy(round(result.held_out_accuracy * held), held)}.",
            "That does not measure robustness: detector-eval runs adaptive attacks.",
            f"In the model store as {result.model.name}.",
        ),
        tables=(Table("images", ("", "clean", "adversarial"), rows),),
        pictures=tuple(course(folder, CLASSIFIER, "Accuracy during training.", kept=result.kept_step)),
        files=(*map(Path, result.model.files), folder),
        next=(
            f"advkit detector-eval {subject} {_budget(config)}",
            f"advkit models lineage {result.model.name}",
        ),
        stored=result,
    )


def draw_evading(folder: Path, data: Data, evading: Mapping[int, Tensor]) -> None:
    """Originals, and below each the image that fools both networks."""
    rows = sorted(evading)[:COLUMNS]
    if rows:
        clean, _ = data.batch(torch.tensor(rows))
        both = torch.cat([clean, torch.stack([evading[row] for row in rows])])
        images.write_grid(folder / EVADING, both, len(rows))


def detection(config: Detection, result: DetectionResult, folder: Path) -> Outcome:
    """The outcome of ``advkit detector-eval``."""
    n, points = result.n, result.points
    rows = [
        (
            f"{100 * point.rate:g} %",
            accuracy(point.adaptive, n),
            accuracy(point.unaware, n),
            accuracy(point.passed, n),
            accuracy(point.flagged_clean, n),
        )
        for point in points
    ]
    rows.append(("no detector", "", accuracy(result.bare, n), accuracy(result.clean_correct, n), ""))
    columns = (
        "false positives",
        "adaptive attack",
        "non-adaptive attack",
        "clean: correct and passed",
        "clean: flagged",
    )
    sentences = [result.sentence]
    if points[0].adaptive < points[0].unaware:
        sentences.append(
            "Only the adaptive attack measures the detector; its figure is an upper bound, and a stronger "
            "attack could lower it."
        )
    stages = tuple(
        (f"{100 * point.rate:g} %", stage.name, f"{stage.attacked:,}", f"{stage.broken:,}")
        for point in points
        for stage in point.stages
    )
    flagged = tuple(
        (one.name, f"{one.fooled:,}", *(_share(point.detected[at], one.fooled) for point in points))
        for at, one in enumerate(result.attacks)
    )
    subject, picture = flags(config, config.data), folder / EVADING
    caption = "Test images, and below each one that is misclassified and not flagged."
    rates = (f"flagged at {100 * point.rate:g} %" for point in points)
    return Outcome(
        title=f"the detector {config.detector} in front of {config.model}",
        sentences=tuple(sentences),
        tables=(
            Table(f"correct or flagged, {_where(result)}", columns, tuple(rows)),
            Table("adaptive attacks", ("false positives", "attack", "attacked", "successful"), stages),
            Table("non-adaptive attacks", ("attack", "examples", *rates), flagged),
        ),
        pictures=(Picture("images that evade both", picture, caption),) if picture.exists() else (),
        files=(folder,),
        next=(
            f"advkit detector-eval {subject} --detector {shlex.quote(config.detector)} {_budget(config)} "
            "--detector-weights 0.03,0.1,0.3,1 --set parameters.square.queries=20000",
            f"advkit attack {subject} {_budget(config)}",
        ),
        stored=result,
    )


@torch.no_grad()
def draw_purified(folder: Path, data: Data, purifier: Purifier) -> None:
    """Images, and below each its purified version."""
    few = torch.arange(min(COLUMNS, len(data)))
    device = next(iter([*purifier.parameters(), *purifier.buffers()]), torch.empty(0)).device
    x, _ = data.batch(few, device)
    with rng.scope(device, 0, "model"):
        images.write_grid(folder / PURIFIED, torch.cat([x, purifier.eval()(x)]).cpu(), len(few))


def purification(config: Purification, result: PurificationResult, folder: Path) -> Outcome:
    """The outcome of ``advkit defence-eval``."""
    n = result.n
    adaptive, unaware, clean = result.adaptive, result.unaware, result.purified_correct
    rows = (
        (config.defence, *(accuracy(count, n) for count in (adaptive, unaware, clean))),
        ("no defence", "", accuracy(result.bare, n), accuracy(result.clean_correct, n)),
    )
    ways = tuple(
        (one.way, stage.name, f"{stage.attacked:,}", f"{stage.broken:,}")
        for one in result.ways
        for stage in one.stages
    )
    recovered = tuple(
        (one.name, f"{one.fooled:,}", _share(one.recovered, one.fooled)) for one in result.attacks
    )
    subject = flags(config, config.data)
    generator = f" --generator {shlex.quote(config.generator)}" if config.generator else ""
    doubts = tuple((doubt,) for doubt in result.doubts)
    columns = ("", "adaptive attack", "non-adaptive attack", "clean")
    return Outcome(
        title=f"{config.defence} in front of {config.model}",
        sentences=(
            result.sentence,
            "Only the accuracy under the adaptive attack measures the defence; it is an upper bound, and a "
            "stronger attack could lower it.",
        ),
        tables=(
            Table(f"classified correctly, {_where(result)}", columns, rows),
            Table("adaptive attacks", ("way", "attack", "attacked", "misclassified"), ways),
            Table("non-adaptive attacks", ("attack", "examples", "correct after purification"), recovered),
            *([Table("reasons for doubt", ("what to do about it",), doubts)] if doubts else []),
        ),
        pictures=(
            Picture("purified", folder / PURIFIED, "Test images, and below each its purified version."),
        ),
        files=(folder,),
        next=(
            f"advkit defence-eval {subject} --defence {config.defence}{generator} {_budget(config)} "
            "--attack pgd,square --set parameters.pgd.restarts=5",
            f"advkit attack {subject} {_budget(config)}",
        ),
        stored=result,
        warning=result.doubts[0] if result.unaveraged else "",
    )


def _where(result: DetectionResult | PurificationResult) -> str:
    return f"{result.threat.norm} eps {result.threat.eps:.4g}, n = {result.n:,} [95 % interval]"


def _share(count: int, n: int) -> str:
    return accuracy(count, n) if n else ""


def _budget(config: DetectorTraining | Detection | Purification) -> str:
    return options(config.norm, config.eps or 0)
