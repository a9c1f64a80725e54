"""Every registered metric, and the arithmetic behind each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import entropy, mannwhitneyu

from advkit.core import rng
from advkit.core.errors import ConfigError, DataError
from advkit.data.load import load_data
from advkit.gan import neighbours
from advkit.gan.evaluation.reference import Reference, chosen, measure
from advkit.gan.judge import judge
from advkit.gan.metric import METRICS, Comparison, FeatureBatch
from advkit.gan.metrics import classification_accuracy, distances, memorisation
from advkit.gan.metrics.distances import discrepancy, frechet

N = 150
NAMES = [entry.name for entry in METRICS]
UPDATES = classification_accuracy.UPDATES
NOTHING = torch.zeros(0)


@pytest.fixture(scope="module")
def reference():
    return Reference(load_data("digits", "train"), load_data("digits"), judge(), n=N)


@pytest.fixture(scope="module")
def comparisons(reference):
    """The floor; other real images; images of one grey."""
    train, rows = reference.train, reference._order
    real = reference.feature_batch(train.images[rows[N : 2 * N]])
    alike = reference._beside(real, train.images[rows[2 * N :]])
    grey = torch.full((N, 1, 8, 8), 128, dtype=torch.uint8)
    constant = reference.comparison(reference.feature_batch(grey))
    return {"floor": reference.floor, "alike": alike, "constant": constant}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(classification_accuracy, "UPDATES", 60)


def values(name: str, comparison: Comparison) -> Mapping[str, float]:
    found = METRICS.get(name)(comparison)
    assert set(found) == {figure.key for figure in METRICS.entry(name).facts["figures"]}
    assert all(np.isfinite(value) for value in found.values())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_real_images_are_at_the_floor_and_constant_ones_far_from_it(name, comparisons):
    floor, alike, constant = (values(name, comparisons[key]) for key in ("floor", "alike", "constant"))
    told = []
    for figure in METRICS.entry(name).facts["figures"]:
        off, far = (found[figure.key] - floor[figure.key] for found in (alike, constant))
        sign = {"lower": 1, "higher": -1, "floor": np.sign(far)}[figure.better]
        told.append(sign * far > 4 * abs(off) and sign * far > 0)
    assert any(told), (floor, alike, constant)


def test_what_is_chosen_is_measured_and_told(reference):
    found, skipped = measure(reference.floor, chosen(["modes", "fid", "fid"]), "test")
    assert set(found) == {"modes", "mode_kl", "fid"} and skipped == {}
    assert [entry.name for entry in chosen(["modes", "fid", "fid"])] == ["fid", "modes"]
    ranks = ("fid", "kid", "precision-recall", "density-coverage", "class-histogram", "modes")
    assert [entry.name for entry in chosen([])] == [*ranks, "classification-accuracy", "memorisation"]
    with pytest.raises(ConfigError):
        chosen(["fdi"])


def normal(seed: int, n: int, width: int) -> torch.Tensor:
    return rng.normal(rng.keys(seed, "test", torch.arange(n)), (width,))


def beside(generated: Any, real: Any, train: torch.Tensor = NOTHING, **said: Any) -> Comparison:
    """Of images, or of feature batches."""
    kind = FeatureBatch
    seen = (one if isinstance(one, kind) else kind(one, NOTHING, NOTHING) for one in (generated, real))
    return Comparison(*seen, train, **{"shares": torch.ones(10) / 10, **said})


def test_fid_is_the_formula():
    a = normal(0, 200, 6) @ normal(1, 6, 6)
    b = normal(2, 300, 6) @ normal(3, 6, 6) + 0.5
    means = a.double().mean(0) - b.double().mean(0)
    cov_a, cov_b = (np.cov(x.double().numpy().T) for x in (a, b))
    wanted = float(means @ means) + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet(a, b) == pytest.approx(wanted, rel=1e-6)
    flat_a, flat_b = (torch.cat([normal(seed, 50, 3), torch.zeros(50, 2)], 1) for seed in (0, 1))
    assert 0 < frechet(flat_a, flat_b) < 1  # features that never change
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(torch.ones(50, 4), torch.zeros(50, 4)) == pytest.approx(4)


def test_kid_is_the_unbiased_estimate(monkeypatch):
    monkeypatch.setattr(distances, "ROWS", 7)  # it adds up pieces
    a, b = normal(0, 30, 4), normal(1, 20, 4) + 0.3

    def kernel(x, y):
        return ((x.double() @ y.double().T) / 4 + 1) ** 3

    within = sum(float(kernel(s, s).fill_diagonal_(0).sum()) / (len(s) * (len(s) - 1)) for s in (a, b))
    assert discrepancy(a, b) == pytest.approx(within - 2 * float(kernel(a, b).mean()), rel=1e-4)
    far = 100 + a.double() / 1000  # where the sums cancel all but a billionth of themselves
    assert discrepancy(far.float(), far.float()) == pytest.approx(discrepancy(far, far), rel=0.1)


def test_neighbours_are_those_of_all_distances(monkeypatch):
    monkeypatch.setattr(neighbours, "CELLS", 100)
    a, b = normal(0, 40, 3) + 50, normal(1, 30, 3) + 50  # far from 0, where cancellation would show
    distance = torch.cdist(a.double(), b.double())
    own = torch.cdist(b.double(), b.double()).fill_diagonal_(torch.inf)
    found, where = neighbours.nearest(a, b, 3)
    wanted = distance.sort(1)
    torch.testing.assert_close(found.double(), wanted.values[:, :3], rtol=1e-3, atol=1e-4)
    assert torch.equal(where, wanted.indices[:, :3])
    squares = neighbours.radii(b, 5)
    torch.testing.assert_close(squares.double().sqrt(), own.sort(1).values[:, 4], rtol=1e-3, atol=1e-4)
    held = distance**2 <= squares
    assert torch.equal(neighbours.inside(a, b, squares), held.sum(1))
    assert neighbours.covered(b, squares, a) == pytest.approx(float(held.any(0).float().mean()))
    assert neighbours.nearest(a, b, 30)[0].shape == (40, 30) and len(neighbours.radii(b[:6], 5)) == 6
    for refused in (lambda: neighbours.radii(b[:5], 5), lambda: neighbours.nearest(a, b, 31)):
        with pytest.raises(DataError):
            refused()


def test_copies_are_at_no_distance():
    """Not even one within rounding, which would say which of two copies is the nearer one."""
    points = normal(0, 200, 64).mul(3).add(5).clamp(min=0)
    twice = torch.cat([points, points])
    assert not neighbours.nearest(points, twice, 2)[0].any() and not neighbours.radii(twice, 1).any()
    assert neighbours.covered(twice, neighbours.radii(twice, 1), points.flip(0)) == 1


def test_balls_reach_to_the_fifth_neighbour():
    """Precision, recall, density and coverage, counted one by one."""
    a, b = normal(0, 60, 3) * 0.7 + 0.5, normal(1, 50, 3)
    comparison = beside(*(FeatureBatch(x, x, NOTHING) for x in (a, b)))
    across = torch.cdist(a.double(), b.double())
    reach = [torch.cdist(x.double(), x.double()).sort(1).values[:, 5] for x in (a, b)]  # after itself
    in_real, in_generated = across <= reach[1], across <= reach[0][:, None]
    wanted = {
        "precision": in_real.any(1).double().mean(),
        "recall": in_generated.any(0).double().mean(),
        "density": in_real.sum(1).double().mean() / 5,
        "coverage": in_real.any(0).double().mean(),
    }
    found = {**values("precision-recall", comparison), **values("density-coverage", comparison)}
    assert found == pytest.approx({key: float(value) for key, value in wanted.items()})
    assert len(set(found.values())) == 4


def test_classes_are_counted_and_their_divergence_is_in_nats():
    seen = torch.tensor([0] * 5 + [2] * 3 + [3])
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    drawn, even = FeatureBatch(torch.zeros(9, 1), NOTHING, seen), torch.full((4,), 0.25)
    found = values("class-histogram", beside(drawn, drawn, shares=shares))
    counts = np.array([5, 0, 3, 1]) / 9
    assert found["class_kl"] == pytest.approx(entropy(counts, shares.numpy()))
    wanted = {"modes": 3, "mode_kl": entropy(counts, even.numpy())}
    assert values("modes", beside(drawn, drawn, shares=shares)) == pytest.approx(wanted)
    never = torch.tensor([0.5, 0.25, 0.0, 0.25], dtype=torch.float64)  # a class that is drawn all the same
    kl = values("class-histogram", beside(drawn, drawn, shares=never))["class_kl"]
    pairs = ((5 / 9, 0.5), (3 / 9, 1e-12), (1 / 9, 0.25))
    assert kl == pytest.approx(sum(p * np.log(p / q) for p, q in pairs))


def grey(*levels: int) -> torch.Tensor:
    """Images of one pixel."""
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1)


def test_a_copy_is_three_times_nearer_to_one_training_image_than_to_the_next():
    for level, copied in ((24, 1), (26, 0), (74, 0), (76, 1)):
        found = memorisation.memorisation(beside(grey(level), grey(9), grey(0, 100)))
        assert found["copied"] == copied


def test_nearer_is_the_chance_that_mann_and_whitney_count():
    a, b = (rng.integers(rng.keys(seed, "t", torch.arange(40)), (1, 1, 1), 60) + 1 for seed in (0, 1))
    found = memorisation.memorisation(beside(a.byte(), b.byte(), grey(0, 255)))["nearer"]
    a, b = a.flatten().numpy(), b.flatten().numpy()
    assert len(set(a) & set(b)) > 3  # equals count half
    assert found == pytest.approx(mannwhitneyu(b, a).statistic / 1600)


def test_only_so_many_images_are_looked_at():
    """10,000 generated and real ones, 60,000 of the training split."""
    drawn = grey(*[0] * 10_000, 100)
    far = memorisation.memorisation(beside(drawn, drawn, grey(100, 200, 50)))
    assert far == {"copied": 0, "nearer": 0.5}  # the last ones lie on a training image
    train = torch.cat([grey(50).expand(60_000, 1, 1, 1), grey(0)])
    assert memorisation.memorisation(beside(grey(0), grey(3), train))["copied"] == 0
    assert memorisation.neighbours(grey(0), train, 1)[1].item() == 50


@pytest.mark.parametrize(("side", "nearest"), [(16, 1), (17, 0), (40, 0)])
def test_larger_images_than_16_are_halved_first(side, nearest):
    """Of a chequered image the mean is left, so that a grey one is its neighbour."""
    board = (torch.arange(side)[:, None] + torch.arange(16)) % 2
    train = torch.stack([torch.full_like(board, 126), 200 * board]).byte()[:, None]
    _, found = memorisation.neighbours((254 * board).byte()[None, None], train, 1)
    assert torch.equal(found, train[nearest : nearest + 1])


def test_the_accuracy_score_is_of_the_labels_that_were_asked_for(comparisons, monkeypatch):
    """A generator that draws other digits than it was asked for teaches nothing."""
    floor = comparisons["floor"]
    wrong = replace(floor.generated, labels=(floor.generated.seen + 1) % 10)
    assert values("classification-accuracy", replace(floor, generated=wrong))["cas"] < 0.3
    assert values("classification-accuracy", floor)["cas"] > 0.6
    plans: list[Any] = []
    monkeypatch.setattr(classification_accuracy, "UPDATES", UPDATES)
    monkeypatch.setattr(classification_accuracy, "fit", lambda model, plan, *rest, **more: plans.append(plan))
    for classes in (100, 10):
        with pytest.raises(AttributeError):  # nothing was trained
            METRICS.get("classification-accuracy")(replace(floor, shares=torch.ones(classes) / classes))
    assert all(plan.epochs * plan.batches(N) == 1500 and plan.batch_size == 64 for plan in plans)
    assert len(plans) == 2


def test_what_does_not_apply_is_left_out(reference):
    floor = reference.floor
    many, unlabelled = torch.ones(101) / 101, replace(floor.generated, labels=None)
    nameless = replace(floor.real, labels=None)
    for other in ({"shares": many}, {"real": nameless}, {"generated": unlabelled, "digits": False}):
        assert measure(replace(floor, **other), chosen(["classification-accuracy"]), "test")[0] == {}
    _, skipped = measure(replace(floor, generated=unlabelled, digits=False), METRICS, "test")
    assert set(skipped) == {"modes", "class-histogram", "classification-accuracy"}
    tiny = [replace(each, images=each.images[..., :3, :3]) for each in (floor.generated, floor.real)]
    found, skipped = measure(
        replace(floor, generated=tiny[0], real=tiny[1]), chosen(["fid", "classification-accuracy"]), "test"
    )
    assert set(found) == {"fid"} and set(skipped) == {
        "classification-accuracy"
    }  # whose network needs 4x4 pixels
