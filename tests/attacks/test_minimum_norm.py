"""Minimum-norm attacks on a linear model, where the nearest success is known, and on a small network."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from advkit import load_data, load_model
from advkit.attacks.perturb import logits_of, make, searching
from advkit.core.threat import Threat
from advkit.models.model import evaluation_mode

LONG = {name: {"steps": 200} for name in ("fmn", "fmn-t", "ddn")}
LONG |= {name: {"steps": 50} for name in ("fab", "fab-t", "deepfool")}
LONG |= {"sigma-zero": {"steps": 100}, "ead": {"steps": 3000, "beta": 0.1}}
"""Enough steps to arrive on the linear model."""
NEAR = {"ead": 1.05, "deepfool": 1.021}
"""Largest distance there in units of the smallest, where it is not 1.01: the l2 term of EAD spreads the
change, and DeepFool overshoots by 2 %."""
STEPS = {"ead": 300}
"""Steps on the small network, where they are not 60."""
NORMS = {"fmn": ("linf", "l2", "l1", "l0"), "sigma-zero": ("l0",), "ead": ("l1",), "ddn": ("l2",)}
NORMS |= {
    "fab": ("linf", "l2", "l1"),
    "fab-t": ("linf", "l2", "l1"),
    "fmn-t": ("linf", "l2", "l1"),
    "deepfool": ("linf", "l2"),
}
SWEEP = [(name, norm) for name, norms in NORMS.items() for norm in norms]


def nearest(model, data, name, norm, *, parameters=None, target_class=None, batch_size=100):
    """(N,) distances of the nearest successes, infinite where there is none, and what was found."""
    attack = make(name, Threat.whole(norm, data.images[0].numel()), parameters or LONG[name])
    given, found = {"name": name, "seed": 0, "target_class": target_class, "nearest": True}, {}
    with evaluation_mode(model):
        search = searching(model, data, attack, batch_size=batch_size, **given)
        search.run(torch.arange(len(data)), lambda f: found.__setitem__(f.index, f))
    inorder = [found[index] for index in range(len(data))]
    return torch.tensor([f.distance if f.broken else torch.inf for f in inorder]), inorder


def smallest(model, data, norm):
    """(N,) distances of the nearest successes of the linear model, inside the box."""
    x, weight = data.images.flatten(1), model.weight.detach()
    score = x @ weight + model.bias
    need = score.abs()
    if norm == "linf":  # the box is out of reach
        return need / weight.abs().sum()
    if norm == "l2":
        return need / weight.norm()
    room = torch.where((weight * score.sign()[:, None]) > 0, x, 1 - x)
    if norm == "l0":
        gains = (weight.abs() * room).sort(dim=1, descending=True).values
        return (gains.cumsum(1) <= need[:, None]).sum(1) + 1.0
    order = weight.abs().argsort(descending=True)  # the steepest entries first, each as far as it goes
    gains = (weight.abs() * room)[:, order]
    before = torch.cat([torch.zeros(len(x), 1), gains.cumsum(1)[:, :-1]], 1)
    used = torch.minimum((need[:, None] - before).clamp(min=0), gains)
    return (used / weight.abs()[order]).sum(1)


@pytest.mark.parametrize(("name", "norm"), SWEEP)
class TestEveryMinimumNormAttack:
    def test_finds_the_nearest_success_of_a_linear_model(self, name, norm, linear):
        model, data = linear
        exact = smallest(model, data, norm)
        found, _ = nearest(model, data, name, norm)
        assert found.isfinite().all()
        assert (found >= exact * 0.9999).all()
        assert (found / exact).max() <= NEAR.get(name, 1.01)

    def test_reports_successes_at_the_distances_that_it_says(self, name, norm, convolutional):
        model, data = convolutional
        distances, found = nearest(model, data, name, norm, parameters={"steps": STEPS.get(name, 60)})
        assert distances.isfinite().float().mean() > 0.8
        x = torch.stack([f.x for f in found])
        with torch.no_grad():
            wrong = model(x).argmax(1) != data.labels
        assert torch.equal(wrong, distances.isfinite())
        assert x.min() >= 0 and x.max() <= 1
        away = Threat.whole(norm, 64).distance(x, data.images)
        assert torch.allclose(away[wrong], distances[wrong])

    def test_reaches_the_class_that_is_wanted(self, name, norm, convolutional):
        model, data = convolutional
        target_class = logits_of(model.eval(), data).argsort(1)[:, -2]
        distances, found = nearest(
            model, data, name, norm, parameters={"steps": STEPS.get(name, 60)}, target_class=target_class
        )
        hit = distances.isfinite()
        assert hit.float().mean() > 0.8
        with torch.no_grad():
            said = model(torch.stack([f.x for f in found])).argmax(1)
        assert torch.equal(said[hit], target_class[hit])


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_start_far_inside_a_class_finds_nearer_successes_of_a_hardened_network(norm):
    model, data = load_model("advkit:digits-robust"), load_data("digits").take(torch.arange(24))
    of = {"fmn": {"steps": 99}} | {name: {"steps": 33, "targets": 3} for name in ("fmn-t", "fab-t")}
    mean = {name: nearest(model, data, name, norm, parameters=of[name])[0].mean() for name in of}
    assert mean["fmn-t"] < 0.97 * min(mean["fmn"], mean["fab-t"])


def test_local_optimality_is_the_share_of_the_area_above_the_curve():
    source = Path(__file__).parents[2] / "recipes/bench/minimum_norm.py"
    found = importlib.util.spec_from_file_location("minimum_norm", source)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    best = torch.tensor([0.0, 0.25, 0.5, 1.0])  # the first is misclassified as it is
    for reached in (
        [0.0, 0.25, 0.5, 1.0],
        [0.0, 0.5, 0.5, 4.0],
        [0.0, 0.75, math.inf, 1.0],
        [0.0] + 3 * [2.0],
    ):
        eps = (torch.arange(4000) + 0.5) / 4000
        robust, least = ((torch.tensor(d)[:, None] > eps).float().mean(0) for d in (reached, best.tolist()))
        area, whole = ((0.75 - curve).mean() for curve in (robust, least))
        assert module.optimality(torch.tensor(reached), best) == pytest.approx(float(area / whole), abs=1e-3)
    beyond = torch.tensor([0.0, 0.25, torch.inf, 1.0])  # an image that no attack breaks adds to no area
    assert module.optimality(beyond, beyond) == 1.0
    assert math.isnan(module.optimality(torch.zeros(2), torch.zeros(2)))
    assert math.isnan(module.optimality(*[torch.full((2,), torch.inf)] * 2))
