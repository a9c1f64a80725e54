"""Starts that lead to other classes."""

import pytest
import torch

from advkit import rng
from advkit.attacks.attack import Rows
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.parts.diversified import STEPS
from advkit.attacks.perturb import make
from advkit.threat import Threat


def after(attack, rows, oracle, steps):
    state = attack.start(rows)
    for _ in range(steps):
        state = attack.step(state, oracle)
        state.iteration = state.iteration + 1
    return state


@pytest.mark.parametrize(
    ("name", "norm", "eps"), [("pgd", "linf", 0.2), ("apgd-ce", "l2", 1.5), ("apgd", "l1", 5.0)]
)
def test_restarts_lead_to_more_classes(convolutional, name, norm, eps):
    model, data = convolutional
    threat = Threat(norm, eps)
    oracle = Oracle(model, threat)
    classes = {}
    for start, steps in (("noise", 0), ("diversified", STEPS)):
        seen = torch.zeros(len(data), 5, dtype=torch.bool)
        for restart in range(8):
            key = rng.keys(0, "t", data.ids, restart)
            rows = Rows.untargeted(data.images, data.labels, data.ids, key)
            x = after(make(name, threat, {"start": start}), rows, oracle, steps).x
            x = threat.project(x, rows.x0)  # in l1 the attack starts outside the budget
            seen[torch.arange(len(data)), model(x).argmax(1)] = True
        classes[start] = float(seen.sum(1).float().mean())
    assert classes["diversified"] > 1.3 * classes["noise"]


def test_the_schedule_begins_after_the_start(convolutional):
    model, data = convolutional
    threat = Threat("linf", 0.05)
    rows = Rows.untargeted(data.images, data.labels, data.ids, rng.keys(0, "t", data.ids))
    attack = make("apgd-ce", threat, {"steps": 10, "start": "diversified"})
    assert attack.steps == 10 + STEPS
    state = after(attack, rows, Oracle(model, threat), STEPS)
    assert (state.since == -1).all() and (state.loss_best == -torch.inf).all()
    assert torch.equal(state.step_size, torch.full((len(data),), 0.1))
    state = after(attack, rows, Oracle(model, threat), STEPS + 1)
    assert (state.since == 0).all() and state.loss_best.isfinite().all()
