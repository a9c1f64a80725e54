"""Attacks on classifier and detector together: what is misclassified and not flagged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from advkit.attacks.attack import ATTACKS
from advkit.attacks.engine.outcome import Found
from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import logits_of, make, searching
from advkit.core.config import Precision
from advkit.core.progress import SILENT, Progress, Task
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.defences.examples import Fooled
from advkit.defences.guarded import Guarded, Joint
from advkit.evaluation.ledger import Entry, Ledger
from advkit.models.model import Model, evaluation_mode


@dataclass(frozen=True)
class AdaptiveAttack:
    """One attack on classifier and detector together."""

    name: str
    key: str
    """Its random numbers follow from it."""
    stage: Stage
    """The attack with its parameters."""
    weight: float
    """Weight of the detector in the loss; unused by attacks without gradients."""


@dataclass(frozen=True)
class Evaded:
    """What adaptive attacks found."""

    robust: Tensor
    """(N,) bool: right and not flagged when clean, and right or flagged under every attack."""
    stages: tuple[tuple[AdaptiveAttack, int, int], ...]
    """Each with the number of images that it attacked, and of those that it broke."""
    images: dict[int, Tensor]
    """By row, the adversarial images (C, H, W): misclassified and not flagged."""


def adaptive_attacks(attacks: Sequence[Stage], weights: Sequence[float]) -> tuple[AdaptiveAttack, ...]:
    """Each attack with each weight; an attack without gradients only once."""
    found = []
    for stage in attacks:
        if ATTACKS.get(stage.attack).access == "gradients":
            for weight in weights:
                name, key = (f"{one}, weight {weight:g}" for one in (stage.name, stage.key))
                found.append(AdaptiveAttack(name, key, stage, weight))
        else:
            found.append(AdaptiveAttack(stage.name, stage.key, stage, 1.0))
    return tuple(found)


def evade(
    classifier: Model,
    detector: Model,
    threshold: float,
    data: Data,
    passed: Tensor,
    threat: Threat,
    attacks: Sequence[Stage],
    weights: Sequence[float],
    *,
    known: Sequence[Fooled] = (),
    flagged: Sequence[Tensor] = (),
    seed: int = 0,
    precision: Precision = "auto",
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> Evaded:
    """Attacks classifier and detector together, one attack after the other, each on the images that
    no earlier one has broken.

    A success is inside the threat model, misclassified and not flagged, confirmed by both networks in their
    own precision on the exact tensor. Gradients are those of `advkit.defences.guarded.Joint`.

    Args:
        classifier: images in [0, 1] to logits.
        detector: images in [0, 1] to scores.
        threshold: scores above it are flagged.
        passed: (N,) bool: those that are classified correctly and not flagged; only they are attacked.
        weights: of the detector in the loss, each tried in turn.
        known: what non-adaptive attacks found; an adaptive attacker may use it, too.
        flagged: (A,) bool for each of them: which images are flagged.
        folder: for the record of verdicts; verdicts in it are not computed again.
    """
    robust, images = passed.clone(), dict[int, Tensor]()
    for found, alarm in zip(known, flagged, strict=True):
        for row, image, flag in zip(found.rows.tolist(), found.images, alarm.tolist(), strict=True):
            if robust[row] and not flag:
                robust[row], images[row] = False, image
    plan = adaptive_attacks(attacks, weights)
    done = []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with (
        evaluation_mode(classifier),
        evaluation_mode(detector),
        Ledger(folder, data, [each.name for each in plan], keep=True) as ledger,
    ):
        for each in plan:
            begun = robust.nonzero()[:, 0]
            with progress.task(f"attacking both with {each.name}", len(begun), unit="image") as task:
                for label in data.labels[begun].unique().tolist():
                    rows = begun[data.labels[begun] == label]
                    exact = Guarded(classifier, detector, threshold, label).eval()
                    joint = Joint(classifier, detector, threshold, label, each.weight).eval()
                    attack = make(each.stage.attack, threat, each.stage.parameters)
                    left = _earlier(ledger, each.name, data, rows, task)
                    if len(left):
                        few = data.take(left)
                        search = searching(
                            exact,
                            few,
                            attack,
                            name=each.key,
                            seed=seed,
                            precision=precision,
                            surrogate=joint,
                        )
                        search.run(torch.arange(len(few)), _recorder(ledger, each.name, few, task))
            for row in begun.tolist():
                robust[row] = not ledger.entries[each.name, int(data.ids[row])].broken
            done.append((each, len(begun), int(len(begun) - robust[begun].sum())))
        ledger.finish()
        for entry in ledger.entries.values():
            if entry.broken:
                images[ledger.rows[entry.id]] = ledger.image(entry)
    return Evaded(robust, tuple(done), images)


def _earlier(ledger: Ledger, stage: str, data: Data, rows: Tensor, task: Task) -> Tensor:
    """The rows that no earlier process has attacked."""
    undecided = [row for row in rows.tolist() if (stage, int(data.ids[row])) not in ledger.entries]
    task.advance(len(rows) - len(undecided))
    return torch.tensor(undecided, dtype=torch.int64)


def _recorder(ledger: Ledger, stage: str, few: Data, task: Task) -> Callable[[Found], None]:
    def record(found: Found) -> None:
        ledger.add(Entry.of(int(few.ids[found.index]), stage, found), found.x.cpu())
        task.advance(1)

    return record


def clean_right(classifier: Model, data: Data) -> Tensor:
    """(N,) bool: classified correctly."""
    with evaluation_mode(classifier):
        return logits_of(classifier, data).argmax(1) == data.labels
