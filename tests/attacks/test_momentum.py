"""Momentum and its relatives, by hand."""

import pytest
import torch

from advkit.attacks.attack import Rows
from advkit.attacks.momentum import blur, shrinking
from advkit.attacks.perturb import fixed, make
from advkit.core import rng
from advkit.core.threat import Threat


class Given:
    """Answers with these gradients, and remembers where it was asked."""

    def __init__(self, *gradients):
        self.gradients, self.asked, self.through = list(gradients), [], []

    def loss_and_grad(self, x, rows, loss, through=None):
        self.asked.append(x.clone())
        if through is not None:
            self.through.append(through(x))
        return None, self.gradients.pop(0).expand(x.shape).clone(), None


def walk(name, norm, oracle, steps, x0=None, **parameters):
    x0 = torch.full((1, 1, 2, 2), 0.5) if x0 is None else x0
    many = torch.arange(len(x0))
    rows = Rows.untargeted(x0, torch.zeros_like(many), many, rng.keys(0, "t", many))
    attack = make(name, Threat(norm, 0.4), {"steps": steps, **parameters})
    state = attack.start(rows)
    for _ in range(steps):
        state = attack.step(state, oracle)
        state.iteration = state.iteration + 1
    return state


FIRST = torch.tensor([[4.0, -2.0], [1.0, 1.0]])  # of mean size 2
SECOND = torch.tensor([[-1.0, 0.0], [-2.0, 1.0]])  # of mean size 1


def test_the_sum_by_hand():
    state = walk("mi-fgsm", "linf", Given(FIRST, SECOND), 2, decay=0.5)
    assert torch.equal(state.velocity[0, 0], torch.tensor([[0.0, -0.5], [-1.75, 1.25]]))
    # Steps of 0.2: up, down, up, up; then none, down, down, up.
    assert torch.allclose(state.x[0, 0], torch.tensor([[0.7, 0.1], [0.5, 0.9]]))


def test_in_l2_gradients_have_length_one():
    state = walk("mi-fgsm", "l2", Given(torch.tensor([[3.0, 0.0], [4.0, 0.0]])), 1)
    assert torch.allclose(state.velocity[0, 0], torch.tensor([[0.6, 0.0], [0.8, 0.0]]))
    assert torch.allclose(state.x[0, 0], torch.tensor([[0.74, 0.5], [0.82, 0.5]]))


def test_nesterov_asks_a_step_ahead():
    oracle = Given(FIRST, SECOND)
    walk("ni-fgsm", "linf", oracle, 2, decay=0.5)
    assert torch.equal(oracle.asked[0], torch.full((1, 1, 2, 2), 0.5))
    # The first step, and 0.2 * 0.5 * the gradient divided by its mean size.
    ahead = torch.tensor([[0.7 + 0.2, 0.3 - 0.1], [0.7 + 0.05, 0.7 + 0.05]])
    assert torch.allclose(oracle.asked[1][0, 0], ahead)


def test_blurring_a_point_gives_a_gaussian():
    point = torch.zeros(32, 32)
    point[16, 12] = 1
    spot = blur(32, 15) @ point @ blur(32, 15)
    assert float(spot.sum()) == pytest.approx(1)
    assert spot.argmax() == 16 * 32 + 12
    # Three standard deviations at 7 pixels from the middle, and nothing beyond.
    assert float(spot[16, 19] / spot[16, 12]) == pytest.approx(float(torch.tensor(-4.5).exp()), rel=1e-4)
    assert spot[16, 20] == 0
    assert (blur(8, 15)[4] > 0).sum() == 3  # half of a small image's side, less one to be odd
    assert torch.equal(blur(3, 15), torch.eye(3))


def test_blurring_comes_before_the_sum():
    x0 = torch.full((1, 1, 8, 8), 0.5)
    gradient = torch.zeros(1, 1, 8, 8)
    gradient[0, 0, 4, 4] = 1
    state = walk("ti-fgsm", "linf", Given(gradient), 1, x0)
    assert int((state.x > 0.5).sum()) == 9


def test_shrinking_by_hand():
    row = torch.tensor([[1.0, 3.0, 5.0, 7.0]])
    halved = shrinking(4, torch.tensor([0.5, 0.5, 1.0]), torch.tensor([0.0, 0.99, 0.3])) @ row[0]
    by_hand = [[2.0, 6.0, 0.0, 0.0], [0.0, 0.0, 2.0, 6.0], [1.0, 3.0, 5.0, 7.0]]
    assert torch.allclose(halved, torch.tensor(by_hand))


def test_every_row_is_shrunk_in_its_own_way():
    oracle = Given(torch.ones(1), torch.ones(1))
    x0 = torch.ones(200, 1, 20, 20)
    walk("di-fgsm", "linf", oracle, 2, x0, probability=0.7, smallest=0.5)
    sizes = [(seen[:, 0] > 0).sum((1, 2)) for seen in oracle.through]
    assert 0.6 < float((sizes[0] < 400).float().mean()) < 0.75  # one in twenty by less than half a pixel
    assert set(sizes[0].tolist()) <= {side**2 for side in range(10, 21)}
    assert (sizes[0] != sizes[1]).float().mean() > 0.5


def test_without_shrinking_it_is_momentum(convolutional):
    model, data = convolutional
    given = {"threat": Threat("linf", 0.05), "ids": data.ids, "seed": 0}
    found = [
        fixed(model, data.images, data.labels, attack=name, parameters=parameters, **given)
        for name, parameters in (("mi-fgsm", {}), ("di-fgsm", {"probability": 0.0}))
    ]
    assert torch.allclose(*found, atol=1e-6)
