"""Starts that lead to other classes."""

import pytest
import torch

from advkit.attacks.attack import Rows
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.loss import margin
from advkit.attacks.parts.ascent import STEPS, diversified
from advkit.attacks.perturb import make
from advkit.core import rng
from advkit.core.threat import Threat


def after(attack, rows, oracle, steps):
    state = attack.start(rows)
    for _ in range(steps):
        state = attack.step(state, oracle)
        state.iteration = state.iteration + 1
    return state


def test_the_first_steps_climb_a_random_direction_of_the_logits():
    key, label = rng.keys(0, "t", torch.arange(200), 1), torch.zeros(200).long()
    climbs = [diversified(margin, key, torch.full((200,), step)) for step in range(STEPS + 1)]
    unit = torch.eye(5).expand(200, -1, -1)
    weights, again = (torch.stack([climb(unit[:, k], label) for k in range(5)], 1) for climb in climbs[:2])
    assert torch.equal(weights, again) and -1 <= weights.min() < -0.98 and 0.98 < weights.max() <= 1
    assert abs(float(weights.mean())) < 0.05 and len(weights.unique(dim=0)) == 200
    logits = rng.normal(key, (5,))
    torch.testing.assert_close(climbs[1](logits, label), (weights * logits).sum(1))
    assert torch.equal(climbs[2](logits, label), margin(logits, label))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_they_are_as_long_as_the_budget(convolutional, norm):
    model, data = convolutional
    threat = Threat(norm, 0.02)
    rows = Rows.untargeted(data.images, data.labels, data.ids, rng.keys(0, "t", data.ids))
    attack = make("pgd", threat, {"start": "diversified", "steps": 50})
    before, first, second, third = (after(attack, rows, Oracle(model, threat), steps).x for steps in range(4))
    assert attack.steps == 52 and threat.distance(third, second).max() < 0.003  # 0.001, projected
    moved = threat.distance(first, before)  # from a point of the ball a step of eps, projected
    assert moved.max() > 0.7 * 0.02 and threat.contains(first, data.images).all()


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
