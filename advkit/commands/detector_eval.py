"""Evaluate a detector under adaptive attacks."""

from __future__ import annotations

import torch

from advkit.attacks.perturb import make
from advkit.core.context import Context
from advkit.data import threats
from advkit.data.subjects import open_subjects
from advkit.defences.detect import detect, refuse_misfit
from advkit.defences.evade import adaptive_attacks
from advkit.defences.examples import attacks_of
from advkit.defences.result import DetectionResult
from advkit.defences.settings import Detection as Config
from advkit.defences.threshold import divided, threshold
from advkit.models.load import load_model
from advkit.report import defences as report
from advkit.report.outcome import Outcome, Table, planned

GROUP = "Defences"
EXAMPLE = "advkit detector-eval --model clf.pt --detector det.pt --norm linf --eps 0.15"


def run(config: Config, context: Context) -> Outcome:
    """Evaluates a detector."""
    (classifier,), (test,) = open_subjects(config, context, "test")
    detector = load_model(config.detector, role="detector", device=context.device)
    refuse_misfit(classifier, detector, test)
    against = threats.choose(config.norm, config.eps, classifier, test, context.progress)
    judged, held = divided(test, config.held, config.n)
    for rate in config.rates:
        threshold(torch.zeros(len(held)), rate)  # fails now on too few images
    config = config.on(test.name, against)
    attacks = attacks_of(config, classifier, test, against)
    if context.dry_run:
        classes = classifier.card.classes or test.classes
        plan = adaptive_attacks(attacks, config.detector_weights)
        made = [make(one.stage.attack, against, one.stage.parameters) for one in plan]
        rows = tuple(
            (one.name, str(attack.steps), str(attack.variants(classes)))
            for one, attack in zip(plan, made, strict=True)
        )
        return planned(
            f"{len(judged):,} test images of {judged.name}, {against}; thresholds fixed on "
            f"{len(held):,} others, for false-positive rates of {', '.join(f'{r:g}' for r in config.rates)}.",
            "At each threshold these attacks are adaptive; they also run once without the detector.",
            table=Table("attacks", ("stage", "steps", "starts and targets"), rows),
            n=len(judged),
            held=len(held),
            stages=[one.name for one in plan],
        )
    inputs = classifier.beginning("classifier") | {"detector": detector.hash, "images": test.fingerprint}
    with context.run_folder("detector-eval", test.name, config, inputs) as run:

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
            report.draw_evading(run.path, judged, evading)
            return result

        return report.detection(config, run.once(DetectionResult, work), run.path)
