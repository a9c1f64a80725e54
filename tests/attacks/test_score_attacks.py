"""Square, NES, SPSA and SimBA: attackers who see logits only."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from advkit.attacks import square
from advkit.attacks.attack import ATTACKS, Rows
from advkit.attacks.parts.square_proposals import LinfProposals, MassProposals, Windows, bump
from advkit.attacks.perturb import make, searching
from advkit.attacks.simba import cosines
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.models.model import evaluation_mode

SCORES = ["square", "nes", "spsa", "simba"]
SWEEP = [(name, norm) for name in SCORES for norm in ATTACKS.get(name).norms]


def run(model, data, threat, name, precision="auto", **parameters):
    """What became of every image."""
    found = []
    with evaluation_mode(model):
        search = searching(
            model, data, make(name, threat, parameters), name=name, seed=0, precision=precision
        )
        search.run(torch.arange(len(data)), found.append)
    return found


@pytest.mark.parametrize(("name", "norm"), SWEEP)
class TestEveryScoreAttack:
    def test_shows_the_model_no_more_points_than_it_may(self, name, norm, convolutional):
        model, data = convolutional
        found = run(model, data, Threat(norm, 1e-4), name, queries=23)
        assert ATTACKS.get(name).access == "scores" and not any(one.broken for one in found)
        assert max(one.forwards for one in found) == 24  # and one to confirm
        assert min(one.forwards for one in found) >= (12 if name == "square" else 24)  # some change nothing
        assert {one.backwards for one in found} == {0}

    def test_reaches_the_goal(self, name, norm, convolutional):
        model, data = convolutional
        few = data.take(torch.arange(8))
        target_class = (few.labels + 1) % 5
        found = []
        with evaluation_mode(model):
            attack = make(name, Threat(norm, {"linf": 0.4, "l2": 3.0, "l1": 20.0}[norm]), {"queries": 500})
            searching(model, few, attack, name=name, seed=0, target_class=target_class).run(
                torch.arange(8), found.append
            )
            said = {one.index: int(model(one.x[None]).argmax()) for one in found if one.broken}
        assert len(said) >= 4
        assert all(said[i] == target_class[i] for i in said)


def test_windows_shrink_as_published():
    windows = Windows(0.8, (1, 28, 28))
    queries = torch.tensor([1, 10, 11, 50, 51, 200, 201, 501, 1001, 2001, 4001, 6001, 8001])
    sides = windows.side(windows.level(queries)).tolist()
    # sqrt(784 * .8 / 2**k) = 25.04, 17.71, 12.52, 8.85, 6.26, 4.43, 3.13, 2.21, 1.57, 1.11
    assert sides == [25, 25, 18, 18, 13, 13, 9, 6, 4, 3, 2, 2, 1]
    assert Windows(0.8, (1, 28, 28), smallest=3, odd=True).sides == [25, 19, 13, 9, 7, 5, 3, 3, 3, 3]
    assert (
        set(Windows(1.0, (1, 4, 9), smallest=3, odd=True).sides) == {3}
        and Windows(1.0, (1, 4, 9)).sides[0] == 4
    )


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


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", [1e-3, 0.1])
def test_proposals_judged_at_once_are_kept_as_if_made_one_by_one(norm, eps, convolutional, monkeypatch):
    model, data = convolutional

    def ends(ahead):
        monkeypatch.setattr(square, "AHEAD", ahead)
        found = run(model, data, Threat(norm, eps), "square", precision="float32", queries=41)
        return sorted((one.index, one.forwards, one.iteration, one.x.tolist()) for one in found)

    assert ends(1) == ends(4)


def test_a_proposal_that_changes_nothing_costs_no_pass(monkeypatch):
    """The first windows cover all of a 2x2 image, so that half of them repaint it as it is."""
    with rng.scope("cpu", 0, "toy"):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    images = rng.uniform(torch.arange(30), (1, 2, 2))
    data = Data("toy", "all", images, model(images).argmax(1), ("a", "b"), torch.arange(30))
    found = run(model, data, Threat("linf", 1e-4), "square", queries=10)
    assert 4 < sum(one.forwards for one in found) / 30 < 9
    monkeypatch.setattr(square, "AHEAD", 1)
    for one in found:
        alone = data.take(torch.tensor([one.index]))
        assert one.forwards == run(model, alone, Threat("linf", 1e-4), "square", queries=10)[0].forwards


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_mass_moves_from_one_window_to_another_as_published(norm):
    """One pair of windows, one turn and one sign a channel explain a proposal (ECCV 2020, algorithm 3)."""
    power, side, eps = (2, 3, 0.4) if norm == "l2" else (1, 3, 2.0)
    moves = MassProposals(0.2, Threat(norm, eps), (2, 6, 7))
    assert moves.windows.sides[0] == side
    x0 = torch.full((1, 2, 6, 7), 0.5)
    change = 0.02 * rng.normal(torch.tensor([2]), (2, 6, 7))  # some of the budget is unused
    key = rng.keys(3, "q", torch.arange(12))[None]
    found = moves.next(x0 + change, moves.limits(x0), key, torch.zeros(1, 12).long())[0] - x0

    def mass(part):  # of each channel
        return part.abs().pow(power).sum((-2, -1), keepdim=True)

    unused = (eps**power - mass(change).sum()) / 2
    places = [(slice(None), slice(r, r + side), slice(c, c + side)) for r in range(4) for c in range(5)]
    ways, expected = list(itertools.product(range(20), range(20), (False, True))), []
    for first, second, turned in ways:
        both = torch.zeros(1, 6, 7)
        both[places[first]] = both[places[second]] = 1
        old = change[0][places[first]] / mass(change[0][places[first]]) ** (1 / power)
        for sign in (-1, 1):
            new = old + sign * (bump(side, power).T if turned else bump(side, power))
            moved = change[0] * (1 - both)
            moved[places[first]] = new * ((mass(change[0] * both) + unused) / mass(new)) ** (1 / power)
            expected.append(moved)
    fits = (torch.stack(expected).view(-1, 1, 2, 2, 6, 7) - found[:, None]).abs().amax((4, 5)) < 1e-5
    assert (fits.any(2).all(2).sum(0) == 1).all()
    way, proposal = fits.any(2).all(2).nonzero().unbind(1)
    first, second, turned = zip(*(ways[at] for at in way.tolist()), strict=True)
    assert len(set(first)) > 5 and len(set(second)) > 5 and len(set(turned)) == 2
    assert len(fits[way, proposal, 0].unique(dim=0)) > 2  # signs of the two channels
    edge = (x0 + change > 0.5).float()
    later = moves.next(edge, moves.limits(edge), key, torch.zeros(1, 12).long())
    for x in (later, moves.first(edge, key[0, :1])):
        assert x.min() == 0 and x.max() == 1


@pytest.mark.parametrize(("norm", "shape"), [("l2", (2, 12, 11)), ("l1", (1, 4, 16)), ("l1", (1, 10, 25))])
def test_the_search_begins_with_tiles_of_bumps(norm, shape):
    power, side = (2 if norm == "l2" else 1), max(shape[1] // 5, 1)
    x0 = torch.full((3, *shape), 0.5)
    change = MassProposals(0.8, Threat(norm, 0.4), shape).first(x0, torch.arange(3)) - x0
    assert torch.allclose(change.flatten(1).norm(power, dim=1), torch.tensor(0.4), rtol=1e-4)
    tall, wide = shape[1] // side, shape[2] // side
    top, left = (shape[1] - tall * side) // 2, (shape[2] - wide * side) // 2
    inner = change[:, :, top : top + tall * side, left : left + wide * side]
    assert float(inner.abs().sum()) == pytest.approx(float(change.abs().sum()))
    tiles = inner.unflatten(3, (wide, side)).unflatten(2, (tall, side)).transpose(3, 4) / bump(side, power)
    assert torch.allclose(tiles.abs(), tiles.abs().amax().expand_as(tiles), rtol=1e-3)
    assert torch.equal(tiles.sign(), tiles[..., :1, :1].sign().expand_as(tiles))
    assert abs(float(tiles.sign().mean())) < 0.5


def test_painting_gives_one_window_one_sign_a_channel():
    shape = (2, 9, 8)
    moves, x0 = LinfProposals(0.2, Threat("linf", 0.3), shape), rng.uniform(torch.arange(4), shape)
    best = moves.first(x0, torch.arange(4))
    up, down = (x0 + 0.3).clamp(max=1), (x0 - 0.3).clamp(min=0)
    assert ((best - up).abs().amax(2).minimum((best - down).abs().amax(2)) < 1e-6).all()  # stripes
    for query, side in ((0, 4), (11, 3), (60, 2)):  # sqrt(72 * .2 / 2**k) = 3.8, 2.7, 1.9
        key = rng.keys(query, "q", torch.arange(240)).view(4, 60)
        proposals = moves.next(best, moves.limits(x0), key, torch.full((4, 60), query))
        rises, falls = ((proposals - each[:, None]).abs() < 1e-6 for each in (up, down))
        assert (rises | falls).all()
        changed = proposals != best[:, None]
        assert not ((changed & rises).flatten(3).any(3) & (changed & falls).flatten(3).any(3)).any()
        extents = [
            each.nonzero().amax(0) - each.nonzero().amin(0) + 1
            for each in changed.flatten(0, 1)
            if each.any()
        ]
        assert torch.stack(extents).amax(0).tolist() == [2, side, side] and len(extents) > 150


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("name", "given"), [("nes", None), ("spsa", None), ("nes", 0.03), ("spsa", 0.03)])
def test_pairs_of_points_estimate_the_gradient(name, given, norm, linear):
    """Each estimate made of what was asked, and the step that follows, by torch's Adam for SPSA."""
    model, data = linear
    eps = {"linf": 0.3, "l2": 1.0}[norm]
    parameters = {"queries": 30, "samples": 6, "sigma": 0.02} | ({"step_size": given} if given else {})
    asked = listened(model, data, make(name, Threat(norm, eps), parameters), 21)
    points, losses = zip(*asked, strict=True)
    centre, mean = points[0].new_tensor(data.images[:5].tolist()), 0
    size = given or (eps / 5 if norm == "linf" or name == "nes" else eps / 5 / 4)
    adam = torch.optim.Adam([centre], size, eps=1e-12, maximize=True)
    for first in (0, 7, 14):
        estimate = torch.zeros_like(centre)
        for at in range(first, first + 6, 2):
            noise = (points[at] - centre) / 0.02
            torch.testing.assert_close(points[at + 1], centre - 0.02 * noise, rtol=0, atol=1e-4)
            assert name == "nes" or torch.allclose(noise.abs(), torch.ones_like(noise), atol=1e-2)
            assert len(noise.flatten(1).sign().unique(dim=0)) == 5  # every row has its own
            estimate += noise * (losses[at] - losses[at + 1]).view(-1, 1, 1, 1) / (6 * 0.02)
        mean = 0.9 * mean + 0.1 * estimate
        if name == "spsa":
            centre.grad = estimate
            adam.step()
        else:
            length = mean.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            centre = centre + size * (mean.sign() if norm == "linf" else mean / length)
        torch.testing.assert_close(points[first + 6], centre, rtol=0, atol=1e-4)


def listened(model, data, attack, steps):
    """(what was asked, the margins there) of five images."""
    label, ids, asked = data.labels[:5], data.ids[:5], []

    class Plain:
        def logits(self, x):
            logits = model(x).detach()
            asked.append((x.clone(), ((logits[:, 1] - logits[:, 0]) * (1 - 2 * label))))
            return logits

    state = attack.start(Rows.untargeted(data.images[:5], label, ids, rng.keys(0, "t", ids)))
    for _ in range(steps):
        state = attack.step(state, Plain())
        state.iteration = state.iteration + 1
    return asked


def test_cosines_are_orthonormal_from_slow_to_fast():
    waves = cosines(9)
    assert torch.allclose(waves @ waves.T, torch.eye(9), atol=1e-6)
    assert [int((wave[1:] * wave[:-1] < 0).sum()) for wave in waves] == list(range(9))


@pytest.mark.parametrize(
    ("basis", "norm", "size"),
    [("pixel", "l2", 0.02), ("pixel", "linf", 0.2), ("dct", "l2", 0.02), ("dct", "linf", 0.02 * 8**0.5)],
)
def test_simba_tries_every_coordinate_once_up_then_down(basis, norm, size, linear):
    model, data = linear
    data = replace(data, images=data.images.view(-1, 2, 2, 4))
    coordinates = list(range(16)) if basis == "pixel" else [0, 1, 8, 9]
    attack = make("simba", Threat(norm, 0.2), {"queries": 60, "basis": basis})
    asked = listened(model, data, attack, 2 * len(coordinates) + 3)
    orders = []
    for row in range(5):
        shown = iter([(x[row], float(margin[row])) for x, margin in asked])
        (best, score), order = next(shown), []
        assert torch.equal(best, data.images[row])
        while len(order) < len(coordinates) + (size < 0.2):  # then from the first again
            for sign in (1, -1):
                x, value = next(shown)
                change = (x - best).double().numpy()
                change = (change if basis == "pixel" else dctn(change, norm="ortho", axes=(1, 2))).ravel()
                place = int(abs(change).argmax())
                assert change == pytest.approx(np.eye(16)[place] * sign * size, abs=1e-5)
                assert sign == 1 or place == order[-1]
                order += [place] if sign == 1 else []
                if value > score:
                    best, score = x, value
                    break
        assert sorted(order[: len(coordinates)]) == coordinates
        assert order[len(coordinates) :] == order[: int(size < 0.2)]
        orders.append(tuple(order))
    assert len(set(orders)) > 1
