"""Clean and robust errors of a classifier on the test images, at the end of training."""

from __future__ import annotations

from typing import Any

from advkit.attacks.perturb import logits_of, robust_correct
from advkit.core.progress import SILENT
from advkit.core.threat import Threat
from advkit.data import threats
from advkit.data.data import Data
from advkit.models.model import Model, evaluation_mode

ATTACKED = 1000
"""Test images attacked at most; as many of each class."""
ATTACKER = {"steps": 20}
"""The PGD that they are attacked with."""


def threat_of(norm: str | None, eps: float | None, model: Model, test: Data) -> Threat | None:
    """The given threat model, completed from the default one; None if there is neither.

    Raises:
        ConfigError: a norm other than the default one, without a budget.
    """
    if norm is None and eps is None and model.card.threat is None and test.threat is None:
        return None
    return threats.choose(norm, eps, model, test, SILENT)


def errors(model: Model, test: Data, threat: Threat | None, seed: int) -> dict[str, Any]:
    """How many of all test images are wrong, and of ``attacked`` ones, wrong or made wrong by PGD.

    Without a threat model nothing is attacked, and ``robust`` is None.
    """
    with evaluation_mode(model):
        wrong = int((logits_of(model, test).argmax(1) != test.labels).sum())
    if threat is None:
        return {"clean": wrong, "n": len(test), "robust": None, "attacked": 0}
    n = min(len(test), max(ATTACKED, test.classes))
    few = test if n == len(test) else test.take(test.balanced(n))  # the first n may all be of one class
    _, robust = robust_correct(model, few, threat, parameters=ATTACKER, seed=seed)
    return {"clean": wrong, "n": len(test), "robust": int((~robust).sum()), "attacked": n}


def facts(threat: Threat | None) -> dict[str, Any] | None:
    """What they were attacked with, for results."""
    if threat is None:
        return None
    return {"attack": "pgd", "parameters": ATTACKER, "norm": threat.norm, "eps": threat.eps}
