"""Auto-PGD in l1."""

import pytest
import torch

from advkit import rng
from advkit.attacks.attack import Rows
from advkit.attacks.parts.apgd_sparse import Sparse
from advkit.attacks.parts.sparse import sparse_ascent_
from advkit.threat import Threat


def test_a_sparse_step_by_hand():
    gradient = torch.tensor([[3.0, -2, 1, 0], [0, 0, 0, 0], [1, -1, 0.5, 0.1], [3, -2, 1, -1]])
    x = torch.full((4, 4), 0.5)
    x[3, :2] = torch.tensor([1.0, 0.0])  # the largest two have nowhere to go
    step = sparse_ascent_(gradient, x, torch.tensor([0.5, 1.0, 0.01, 0.5]))
    by_hand = [
        [0.5, -0.5, 0, 0],
        [0, 0, 0, 0],
        [0.5, -0.5, 0, 0],
        [0, 0, 0.5, -0.5],
    ]  # equal entries all move
    assert torch.equal(step, torch.tensor(by_hand))


@pytest.mark.parametrize(
    ("steps", "phases"), [(100, (30, 30, 40)), (10, (3, 3, 4)), (2, (0, 0, 2)), (1, (0, 0, 1))]
)
def test_the_ball_shrinks_in_three_phases(steps, phases):
    rows = Rows.untargeted(
        torch.full((2, 1, 6, 6), 0.5),
        torch.zeros(2).long(),
        torch.arange(2),
        rng.keys(0, "t", torch.arange(2)),
    )
    threat = Threat("l1", 1.0)
    schedule = Sparse(threat, steps)
    state = schedule.begin(rows, schedule.first(rows), rows.label)
    radii = []
    for _ in range(steps):
        distance = threat.distance(state.x, rows.x0)
        assert torch.allclose(distance, state.radius, atol=1e-4)  # the loss below drives it to the surface
        radii.append(round(float(state.radius[0])))
        state.x_best, state.grad_best, state.loss_best = state.x, torch.ones_like(state.x), torch.zeros(2)
        state = schedule.move(state, torch.zeros(2), rng.normal(rows.key, (1, 6, 6)))
        state.iteration = state.iteration + 1
    assert radii == [3] * phases[0] + [2] * phases[1] + [1] * phases[2]
    assert threat.contains(state.x, rows.x0).all()
