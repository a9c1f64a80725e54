"""The evaluation of a detector: thresholds, non-adaptive attacks, then adaptive ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import make
from advkit.core.errors import DataError, by_size
from advkit.core.progress import SILENT, Progress
from advkit.core.stats import clopper_pearson
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.defences.evade import Evaded, clean_right, evade
from advkit.defences.examples import Fooled, attacks_of, left, non_adaptive
from advkit.defences.result import Adaptive, DetectionResult, NonAdaptive, OperatingPoint
from advkit.defences.settings import Detection
from advkit.defences.threshold import scores, threshold
from advkit.models.card import ThreatFacts
from advkit.models.model import Model


def refuse_misfit(classifier: Model, detector: Model, data: Data) -> None:
    """Raises a DataError unless the detector takes the images that the classifier takes."""
    if detector.card.shape != data.shape:
        theirs, ours = map(by_size, (detector.card.shape, data.shape))
        raise DataError(
            f"the detector takes {theirs} images but the classifier takes {ours} ones "
            "(channels x height x width); name a detector of such images"
        )
    if classifier.card.classes is not None:
        data.refuse_labels_beyond(classifier.card.classes)


def detect(
    classifier: Model,
    detector: Model,
    images: Data,
    held: Data,
    threat: Threat,
    config: Detection,
    *,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[DetectionResult, dict[int, Tensor]]:
    """Judges a detector.

    Args:
        detector: on the same device.
        held: other clean images, to fix thresholds on.
        folder: for records from which an interrupted run resumes.

    Returns:
        (the result; by row, the images that are misclassified and not flagged at the first rate)

    Raises:
        DataError: too few images to fix a threshold on, or images that do not fit.
        ModelError: the detector's scores are NaN or infinite.
    """
    refuse_misfit(classifier, detector, images)
    attacks = attacks_of(config, classifier, images, threat)
    on_held, on_clean = scores(detector, held), scores(detector, images)
    levels = {rate: threshold(on_held, rate) for rate in config.rates}
    right = clean_right(classifier, images)
    known = non_adaptive(attacks, classifier, images, threat, config, progress)
    marks = [scores(detector, each.images) for each in known]
    points, evading = [], dict[int, Tensor]()
    for rate, level in levels.items():
        flagged = [each > level for each in marks]
        passed = right & (on_clean <= level)
        found = evade(
            classifier,
            detector,
            level,
            images,
            passed,
            threat,
            attacks,
            config.detector_weights,
            known=known,
            flagged=flagged,
            seed=config.seed,
            precision=config.precision,
            folder=None if folder is None else folder / f"rate-{rate:g}",
            progress=progress,
        )
        evading = evading or found.images
        points.append(
            _point(rate, level, passed, found, known, flagged)
            | {
                "flagged_held": int((on_held > level).sum()),
                "flagged_clean": int((on_clean > level).sum()),
            }
        )
    result = DetectionResult(
        model=config.model,
        model_hash=classifier.hash,
        detector=config.detector,
        detector_hash=detector.hash,
        threat=ThreatFacts(norm=threat.norm, eps=threat.eps),
        data=images.facts,
        held=held.facts,
        settings=config.model_dump(mode="json"),
        n=len(images),
        clean_correct=int(right.sum()),
        bare=int(left(right, known).sum()),
        attacks=tuple(
            NonAdaptive(
                name=stage.name, attack=stage.attack, parameters=_all(stage, threat), fooled=len(each)
            )
            for stage, each in zip(attacks, known, strict=True)
        ),
        points=tuple(OperatingPoint(**point) for point in points),
    )
    return result, evading


def _all(stage: Stage, threat: Threat) -> dict[str, Any]:
    """The attack's parameters, defaults too."""
    return make(stage.attack, threat, stage.parameters).config.model_dump(mode="json")


def _point(
    rate: float, level: float, passed: Tensor, found: Evaded, known: list[Fooled], flagged: list[Tensor]
) -> dict[str, Any]:
    """One threshold's figures."""
    left = passed.clone()
    for each, alarm in zip(known, flagged, strict=True):
        left[each.rows[~alarm]] = False
    adaptive, unaware, n = int(found.robust.sum()), int(left.sum()), len(passed)
    return {
        "rate": rate,
        "threshold": level,
        "passed": int(passed.sum()),
        "adaptive": adaptive,
        "adaptive_interval": clopper_pearson(adaptive, n),
        "unaware": unaware,
        "unaware_interval": clopper_pearson(unaware, n),
        "detected": tuple(int(alarm.sum()) for alarm in flagged),
        "stages": tuple(
            Adaptive(name=one.name, attack=one.stage.attack, weight=one.weight, attacked=tried, broken=broken)
            for one, tried, broken in found.stages
        ),
    }
