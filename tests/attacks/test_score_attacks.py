"""Square, NES, SPSA and SimBA: attackers who see logits only."""

import pytest
import torch

from advkit import rng
from advkit.attacks import square
from advkit.attacks.attack import ATTACKS, Rows
from advkit.attacks.parts.square_mass import bump
from advkit.attacks.parts.windows import Windows
from advkit.attacks.perturb import make, robust_correct, searching
from advkit.attacks.simba import cosines
from advkit.data.data import Data
from advkit.models.mode import evaluation_mode
from advkit.threat import Threat

SCORES = ["square", "nes", "spsa", "simba"]
SWEEP = [(name, norm) for name in SCORES for norm in ATTACKS.get(name).norms]
NEAR = {
    ("square", "linf"): 1.01,
    ("square", "l2"): 2.0,  # on 4x4 pixels a bump is coarse
    ("square", "l1"): 2.0,
    ("nes", "linf"): 1.2,
    ("nes", "l2"): 1.1,
    ("spsa", "linf"): 1.1,
    ("spsa", "l2"): 1.05,
    ("simba", "linf"): 1.2,
    ("simba", "l2"): 1.1,
}
"""How many times the exact distance 500 queries need."""


def run(model, data, threat, name, precision="auto", **parameters):
    """What became of every image."""
    found = []
    with evaluation_mode(model):
        search = searching(
            model, data, make(name, threat, parameters), name=name, seed=0, precision=precision
        )
        search.run(torch.arange(len(data)), found.append)
    return found


def distance(model, data, norm):
    """(N,) of the linear model's boundary: |w.x + b| over the dual norm of w."""
    score = model(data.images)[:, 1].detach().abs()
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    return score / model.weight.detach().norm(dual)


@pytest.mark.parametrize(("name", "norm"), SWEEP)
class TestEveryScoreAttack:
    def test_sees_scores_only(self, name, norm):
        assert ATTACKS.get(name).access == "scores"

    def test_shows_the_model_no_more_points_than_it_may(self, name, norm, convolutional):
        model, data = convolutional
        shown = []
        model.register_forward_hook(lambda module, given, answer: shown.append(len(answer)))
        found = run(model, data, Threat(norm, 1e-4), name, queries=23)
        assert not any(one.broken for one in found)
        assert max(one.forwards for one in found) == 24  # and one to confirm
        assert min(one.forwards for one in found) >= (12 if name == "square" else 24)  # some change nothing
        assert {one.backwards for one in found} == {0}

    def test_comes_near_the_closed_form(self, name, norm, linear):
        """The linear model's boundary is reached within a budget a little above its exact distance."""
        model, data = linear
        near = distance(model, data, norm)
        parameters = {"share": 1.0} if name == "simba" else {}
        for i in near.argsort(descending=True)[:2].tolist():
            one, exact = data.take(torch.tensor([i])), float(near[i])
            above = Threat(norm, NEAR[name, norm] * exact)
            assert run(model, one, above, name, queries=500, **parameters)[0].broken
            below = Threat(norm, 0.99 * exact)
            assert not run(model, one, below, name, queries=50, **parameters)[0].broken

    def test_reaches_the_goal(self, name, norm, convolutional):
        model, data = convolutional
        few = data.take(torch.arange(8))
        goal = (few.labels + 1) % 5
        found = []
        with evaluation_mode(model):
            attack = make(name, Threat(norm, {"linf": 0.4, "l2": 3.0, "l1": 20.0}[norm]), {"queries": 500})
            searching(model, few, attack, name=name, seed=0, goal=goal).run(torch.arange(8), found.append)
            said = {one.index: int(model(one.x[None]).argmax()) for one in found if one.broken}
        assert len(said) >= 4
        assert all(said[i] == goal[i] for i in said)

    def test_finds_more_than_noise(self, name, norm, convolutional):
        model, data = convolutional
        threat = Threat(norm, {"linf": 0.08, "l2": 0.5, "l1": 3.0}[norm])
        ours = robust_correct(model, data, threat, name, parameters={"queries": 300})[1]
        noise = robust_correct(model, data, threat, "noise", parameters={"draws": 300})[1]
        assert int(ours.sum()) <= int(noise.sum()) - 3


def test_windows_shrink_as_published():
    windows = Windows(0.8, (1, 28, 28))
    queries = torch.tensor([1, 10, 11, 50, 51, 200, 201, 501, 1001, 2001, 4001, 6001, 8001])
    sides = windows.side(windows.level(queries)).tolist()
    # sqrt(784 * .8 / 2**k) = 25.04, 17.71, 12.52, 8.85, 6.26, 4.43, 3.13, 2.21, 1.57, 1.11
    assert sides == [25, 25, 18, 18, 13, 13, 9, 6, 4, 3, 2, 2, 1]
    assert all(side % 2 for side in Windows(0.8, (1, 28, 28), smallest=3, odd=True).sides)


def test_windows_reach_every_place_and_stay_inside():
    windows = Windows(0.8, (1, 5, 7))
    side = torch.full((400,), 3)
    corners = windows.corners(side, rng.uniform(torch.arange(400), (1, 2)))
    rows, columns = windows.inside(corners, side)
    assert set(corners[:, 0, 0].tolist()) == {0, 1, 2}
    assert set(corners[:, 0, 1].tolist()) == {0, 1, 2, 3, 4}
    assert (rows.sum(-1) == 3).all()
    assert (columns.sum(-1) == 3).all()


@pytest.mark.parametrize("power", [1, 2])
def test_a_bump_is_two_pyramids_of_equal_mass(power):
    square = bump(5, power)
    assert float(square.abs().pow(power).sum()) == pytest.approx(1, rel=1e-5)
    assert float(square[:2].pow(power).sum()) == pytest.approx(0.5, rel=1e-5)
    assert (square[:2] > 0).all()
    assert (square[2:] < 0).all()
    # Heights 1 + 1/4 + 1/9, 1/4 + 1/9 and 1/9 at distances 0, 1 and 2 from the lower centre.
    heights = square[3, 2:] / square[3, 2]
    assert heights.tolist() == pytest.approx([1, 13 / 49, 4 / 49], rel=1e-5)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_moving_mass_spends_the_budget(norm):
    """Far from 0 and 1 nothing is clipped, so every proposal is at distance eps."""
    x0 = torch.full((30, 3, 9, 9), 0.5)
    threat = Threat(norm, 0.5)
    attack = make("square", threat)
    ids = torch.arange(30)
    state = attack.start(Rows.untargeted(x0, ids % 2, ids, rng.keys(0, "mass", ids)))

    class Steady:
        def first_better(self, x, asked, rows, loss, best):
            first = torch.zeros_like(rows.label)
            return asked[:, 0], first, best.nan_to_num(neginf=0.0) + 1

    for _ in range(60):
        assert torch.allclose(threat.distance(state.x, x0), torch.tensor(0.5), rtol=1e-4)
        assert threat.contains(state.x, x0).all()
        state = attack.step(state, Steady())
        state.iteration = state.iteration + 1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", [1e-3, 0.1])
def test_proposals_judged_at_once_are_kept_as_if_made_one_by_one(norm, eps, convolutional, monkeypatch):
    model, data = convolutional

    def ends(ahead):
        monkeypatch.setattr(square, "AHEAD", ahead)
        found = run(model, data, Threat(norm, eps), "square", precision="float32", queries=41)
        return sorted((one.index, one.forwards, one.iteration, one.x.tolist()) for one in found)

    assert ends(1) == ends(4)


def test_a_proposal_that_changes_nothing_costs_no_pass():
    """The first windows cover all of a 2x2 image, so that half of them repaint it as it is."""
    with rng.scope("cpu", 0, "toy"):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    images = rng.uniform(torch.arange(30), (1, 2, 2))
    data = Data("toy", "all", images, model(images).argmax(1), ("a", "b"), torch.arange(30))
    found = run(model, data, Threat("linf", 1e-4), "square", queries=10)
    assert 4 < sum(one.forwards for one in found) / 30 < 9


def test_signs_are_a_fair_and_reproducible_toss():
    signs = rng.signs(torch.arange(50), (3, 7, 11))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / signs.numel() ** 0.5
    assert torch.equal(signs[20:30], rng.signs(torch.arange(20, 30), (3, 7, 11)))


@pytest.mark.parametrize("name", ["nes", "spsa"])
def test_the_estimate_points_up_the_gradient(name, linear):
    """After one estimate from many pairs, the l2 step of a linear model is nearly along its weights."""
    model, data = linear
    attack = make(name, Threat("l2", 5.0), {"queries": 2000, "samples": 1000, "sigma": 0.01})
    rows = Rows.untargeted(data.images, data.labels, data.ids, rng.keys(0, name, data.ids))
    state = attack.start(rows)

    class Plain:
        def logits(self, x):
            return model(x).detach()

    estimates = []
    climb = attack.climb
    attack.climb = lambda centre, estimate, *rest: (
        estimates.append(estimate.clone()) or climb(centre, estimate, *rest)
    )
    for _ in range(1000):
        state = attack.step(state, Plain())
        state.iteration = state.iteration + 1
    toward = torch.where(data.labels[:, None] == 1, -1.0, 1.0) * model.weight.detach()
    assert len(estimates) == 1
    assert torch.cosine_similarity(estimates[0].flatten(1), toward).min() > 0.95
    size = estimates[0].flatten(1).norm(dim=1) / model.weight.detach().norm()
    assert torch.allclose(size, torch.tensor(1.0), atol=0.25)


def test_cosines_are_orthonormal_from_slow_to_fast():
    waves = cosines(9)
    assert torch.allclose(waves @ waves.T, torch.eye(9), atol=1e-6)
    assert [int((wave[1:] * wave[:-1] < 0).sum()) for wave in waves] == list(range(9))


def test_simba_tries_every_pixel_once_up_then_down():
    x0 = torch.full((4, 1, 3, 3), 0.5)
    ids = torch.arange(4)
    attack = make("simba", Threat("l2", 1.0), {"queries": 19, "basis": "pixel", "step_size": 0.25})
    state = attack.start(Rows.untargeted(x0, ids * 0, ids, rng.keys(0, "simba", ids)))

    class Deaf:
        def logits(self, x):
            return torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)

    shown = []
    for _ in range(19):
        shown.append(state.x - x0)
        state = attack.step(state, Deaf())
        state.iteration = state.iteration + 1
    changes = torch.stack(shown[1:]).flatten(2)
    assert torch.equal(shown[0], torch.zeros_like(x0))
    assert torch.equal(changes[0::2], -changes[1::2])
    assert torch.equal(changes[0::2].sum(0), torch.full((4, 9), 0.25))
    assert not torch.equal(changes[:, 0], changes[:, 1])
