"""The evaluation of a purifier: non-adaptive attacks, then adaptive ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from advkit.attacks.engine.oracle import query
from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import device_of, make
from advkit.core import rng
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.core.stats import clopper_pearson
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.defences.evade import clean_right
from advkit.defences.examples import Fooled, attacks_of, left, non_adaptive
from advkit.defences.purifier import Purifier, Way
from advkit.defences.result import AdaptiveEvaluation, PurificationResult, Recovered
from advkit.defences.settings import Purification
from advkit.evaluation.evaluate import VOTES, evaluate
from advkit.evaluation.result import EvaluationResult
from advkit.models.card import ThreatFacts
from advkit.models.load import wrap
from advkit.models.model import Model, evaluation_mode

BATCH = 500
"""Images of a pass."""
WAYS: dict[Way, str] = {"identity": "BPDA", "gradient": "gradient through it"}
"""Their names in tables."""


class Purified(nn.Module):
    """Purifies, then classifies: logits (N, K) of images in [0, 1]."""

    def __init__(self, purifier: Purifier, classifier: Model) -> None:
        super().__init__()
        self.purifier, self.classifier = purifier, classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.classifier(self.purifier(x))
        return logits


@torch.no_grad()
def right(purified: Model, images: Tensor, labels: Tensor, *, votes: int, seed: int) -> Tensor:
    """(N,) bool: classified correctly, by the mean probabilities of ``votes`` passes."""
    if len(images) == 0:
        return torch.zeros(0, dtype=torch.bool)
    device, found = device_of(purified), []
    with evaluation_mode(purified), rng.scope(device, seed, "model"):
        for part in images.split(BATCH):
            passes = [query(purified, part.to(device)).softmax(1) for _ in range(votes)]
            found.append(torch.stack(passes).mean(0).argmax(1).cpu())
    return torch.cat(found) == labels


def unaveraged(purifier: Purifier, stages: Sequence[Stage], threat: Threat) -> list[str]:
    """The gradient attacks that take a single sample of a random defence in each step."""
    if not purifier.random:
        return []
    made = {stage.name: make(stage.attack, threat, stage.parameters) for stage in stages}
    return [
        name
        for name, attack in made.items()
        if attack.access == "gradients" and getattr(attack.config, "samples", 1) < 2
    ]


def defend(
    classifier: Model,
    purifier: Purifier,
    images: Data,
    threat: Threat,
    config: Purification,
    *,
    generator_hash: str | None = None,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> PurificationResult:
    """Judges a purifier.

    Args:
        purifier: on the same device.
        generator_hash: of the generator or VAE inside the purifier.
        folder: for records from which an interrupted run resumes.
    """
    stages = attacks_of(config, classifier, images, threat)
    device = device_of(classifier)
    purified = wrap(Purified(purifier, classifier), shape=images.shape, classes=classifier.card.classes)
    purified = purified.to(device).eval()
    votes = VOTES if purifier.random else 1
    bare = clean_right(classifier, images)
    known = non_adaptive(stages, classifier, images, threat, config, progress)
    x, y = images.batch(torch.arange(len(images)))
    clean = right(purified, x, y, votes=votes, seed=config.seed)
    recovered = [right(purified, each.images, y[each.rows], votes=votes, seed=config.seed) for each in known]
    naive = clean.clone()
    for each, saved in zip(known, recovered, strict=True):
        naive[each.rows[~saved]] = False
    adaptive, ways = naive.clone(), []
    for way in purifier.ways:
        found = _adaptive(purified, way, images, threat, config, purifier, folder, progress)
        broken = torch.tensor([verdict.status == "broken" for verdict in found.verdicts])
        adaptive &= ~broken
        ways.append(
            AdaptiveEvaluation(
                way=WAYS[way], left=found.robust_correct, stages=found.stages, checks=found.checks
            )
        )
    n = len(images)
    under_adaptive, under_naive = int(adaptive.sum()), int(naive.sum())
    return PurificationResult(
        model=config.model,
        model_hash=classifier.hash,
        defence=config.defence,
        generator=config.generator,
        generator_hash=generator_hash,
        purifier=purifier.config.model_dump(mode="json"),
        random=purifier.random,
        unaveraged=tuple(unaveraged(purifier, stages, threat)),
        threat=ThreatFacts(norm=threat.norm, eps=threat.eps),
        data=images.facts,
        settings=config.model_dump(mode="json"),
        n=n,
        clean_correct=int(bare.sum()),
        purified_correct=int(clean.sum()),
        bare=int(left(bare, known).sum()),
        adaptive=under_adaptive,
        adaptive_interval=clopper_pearson(under_adaptive, n),
        unaware=under_naive,
        unaware_interval=clopper_pearson(under_naive, n),
        attacks=tuple(_recovered(*each) for each in zip(stages, known, recovered, strict=True)),
        ways=tuple(ways),
    )


def _recovered(stage: Stage, found: Fooled, saved: Tensor) -> Recovered:
    return Recovered(name=stage.name, attack=stage.attack, fooled=len(found), recovered=int(saved.sum()))


def _adaptive(
    purified: Model,
    way: Way,
    images: Data,
    threat: Threat,
    config: Purification,
    purifier: Purifier,
    folder: Path | None,
    progress: Progress,
) -> EvaluationResult:
    """The evaluation of purifier and classifier together; read from its folder if it has been done before."""

    def measured(run: RunFolder | None) -> EvaluationResult:
        return evaluate(
            purified,
            images,
            threat,
            config.attack,
            parameters=config.parameters,
            seed=config.seed,
            precision=config.precision,
            bpda=("purifier",) if way == "identity" else (),
            allow_random=purifier.random,
            run=run,
            progress=progress,
        )

    if folder is None:
        return measured(None)
    with RunFolder.open("defence-eval", way, config, folder / way) as run:
        if run.finished:
            return EvaluationResult.load(run.path)
        result = measured(run)
        run.finish(result.as_values())
        return result
