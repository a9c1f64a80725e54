"""Accuracies while a classifier is trained, before and after: clean, and under PGD in all threat models or as
the objective measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from advkit.attacks.perturb import device_of, logits_of, robust_correct
from advkit.core import distributed
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.models.model import Model, evaluation_mode
from advkit.training.objective import Batch, Objective

ATTACKER = {"steps": 10}
"""The PGD whose robust accuracy on held-out images chooses the best checkpoint."""
BATCH = 500
"""Images that an objective measures at a time."""


def counts(
    model: Model, data: Data, threats: Sequence[Threat], *, parameters: Mapping[str, Any], seed: int
) -> tuple[int, int]:
    """(how many images are classified correctly, how many of them are robust to PGD in every threat model).

    Several processes share the images out; what is found on one does not depend on the others.

    Args:
        model: images in [0, 1] to logits.
        threats: each attacks what the ones before have left; none: nothing is attacked.
    """
    mine = torch.arange(distributed.rank(), len(data), distributed.world())
    right = robust = 0
    if len(mine):
        standing = data.take(mine)
        if not threats:
            with evaluation_mode(model):
                right = int((logits_of(model, standing).argmax(1) == standing.labels).sum())
        for threat in threats:
            correct, left = robust_correct(model, standing, threat, parameters=parameters, seed=seed)
            right = int(correct.sum()) if threat is threats[0] else right
            robust = int(left.sum())
            if robust == 0:
                break
            standing = standing.take(left.nonzero()[:, 0])
    counts = distributed.gather((right, robust))
    return sum(clean for clean, _ in counts), sum(left for _, left in counts)


def scores(model: Model, data: Data, threats: Sequence[Threat], seed: int) -> dict[str, float]:
    """Shares: ``clean``, and ``robust`` where there is a threat."""
    clean, robust = counts(model, data, threats, parameters=ATTACKER, seed=seed)
    found = {"clean": clean / len(data)}
    return {**found, "robust": robust / len(data)} if threats else found


@torch.no_grad()
def measured(
    model: Model, data: Data, objective: Objective, threats: Sequence[Threat], seed: int
) -> dict[str, float]:
    """Shares: ``clean``, and what the objective's own criterion is called."""
    clean, _ = counts(model, data, (), parameters=ATTACKER, seed=seed)
    mine = torch.arange(distributed.rank(), len(data), distributed.world())
    total = 0.0
    with evaluation_mode(model):
        for rows in mine.split(BATCH):
            x, y = data.batch(rows, device_of(model))
            batch = Batch(data.ids[rows].to(x.device), 0, 1, seed, threats[0] if threats else None)
            total += float(objective.measure(model, x, y, batch).double().sum())
    return {"clean": clean / len(data), objective.criterion: sum(distributed.gather(total)) / len(data)}
