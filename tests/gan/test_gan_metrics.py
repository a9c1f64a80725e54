"""Every registered metric, and the arithmetic behind each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from advkit import rng
from advkit.data.load import load_data
from advkit.errors import ConfigError, DataError
from advkit.gan import judge as judging
from advkit.gan import neighbours
from advkit.gan.evaluation.reference import Reference, chosen, measure
from advkit.gan.judge import judge
from advkit.gan.metric import METRICS, Comparison, NotApplicableError, Sight
from advkit.gan.metrics import classification_accuracy, kid, memorisation
from advkit.gan.metrics.classes import divergence
from advkit.gan.metrics.fid import frechet
from advkit.gan.metrics.kid import discrepancy

N = 150
NAMES = [entry.name for entry in METRICS]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(load_data("digits", "train"), load_data("digits"), judge(), n=N)


@pytest.fixture(scope="module")
def comparisons(reference: Reference) -> dict[str, Comparison]:
    """The floor; other real images; images of one grey."""
    others = reference._order[N : 2 * N]
    train = reference.train
    rest = reference._order[2 * N :]
    alike = reference._beside(reference.sight(train.images[others]), train.images[rest])
    grey = torch.full((N, 1, 8, 8), 128, dtype=torch.uint8)
    return {
        "floor": reference.floor,
        "alike": alike,
        "constant": reference.comparison(reference.sight(grey)),
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification_accuracy, "UPDATES", 60)


def values(name: str, comparison: Comparison) -> Mapping[str, float]:
    found = METRICS.get(name)(comparison)
    assert set(found) == {figure.key for figure in METRICS.entry(name).facts["figures"]}
    assert all(np.isfinite(value) for value in found.values())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_real_images_are_at_the_floor_and_constant_ones_far_from_it(
    name: str, comparisons: dict[str, Comparison]
) -> None:
    floor, alike, constant = (values(name, comparisons[key]) for key in ("floor", "alike", "constant"))
    told = []
    for figure in METRICS.entry(name).facts["figures"]:
        off, far = (found[figure.key] - floor[figure.key] for found in (alike, constant))
        sign = {"lower": 1, "higher": -1, "floor": np.sign(far)}[figure.better]
        told.append(sign * far > 4 * abs(off) and sign * far > 0)
    assert any(told), (floor, alike, constant)
    again = replace(comparisons["alike"])
    assert values(name, again) == alike


@pytest.mark.parametrize("name", NAMES)
def test_pieces_change_nothing(
    name: str, comparisons: dict[str, Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = values(name, comparisons["floor"])
    floor = comparisons["floor"]
    fresh = replace(floor, generated=replace(floor.generated), real=replace(floor.real))
    monkeypatch.setattr(neighbours, "CELLS", 1000)
    monkeypatch.setattr(kid, "ROWS", 7)
    monkeypatch.setattr(judging, "BATCH", 64)
    assert values(name, fresh) == pytest.approx(whole, rel=1e-4, abs=1e-4)


def test_what_is_chosen_is_measured_and_told(reference: Reference) -> None:
    found, skipped = measure(reference.floor, chosen(["modes", "fid", "fid"]), "test")
    assert set(found) == {"modes", "mode_kl", "fid"} and skipped == {}
    assert found["modes"] == 10 and found["mode_kl"] < 0.2
    assert [entry.name for entry in chosen(["modes", "fid", "fid"])] == ["fid", "modes"]
    assert sorted(entry.name for entry in chosen([])) == NAMES
    with pytest.raises(ConfigError, match="did you mean 'fid'"):
        chosen(["fdi"])


def test_without_digits_what_needs_the_judges_answers_is_left_out(reference: Reference) -> None:
    floor = replace(reference.floor, digits=False)
    with pytest.raises(NotApplicableError):
        METRICS.get("modes")(floor)
    unlabelled = replace(floor, generated=replace(floor.generated, labels=None))
    _, skipped = measure(unlabelled, METRICS, "test")
    assert set(skipped) == {"modes", "class-histogram", "classification-accuracy"}


def normal(seed: int, n: int, width: int) -> torch.Tensor:
    return rng.normal(rng.keys(seed, "test", torch.arange(n)), (width,))


def test_fid_is_the_formula() -> None:
    a = normal(0, 200, 6) @ normal(1, 6, 6)
    b = normal(2, 300, 6) @ normal(3, 6, 6) + 0.5
    means = a.double().mean(0) - b.double().mean(0)
    cov_a, cov_b = (np.cov(x.double().numpy().T) for x in (a, b))
    wanted = float(means @ means) + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet(a, b) == pytest.approx(wanted, rel=1e-6)
    shift = torch.tensor([3.0, 0, 0, 0, 4, 0])
    assert frechet(a, a + shift) == pytest.approx(25, rel=1e-4)


def test_fid_with_a_feature_that_never_changes() -> None:
    a, b = (torch.cat([normal(seed, 50, 3), torch.zeros(50, 2)], 1) for seed in (0, 1))
    assert 0 < frechet(a, b) < 1
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(torch.ones(50, 4), torch.zeros(50, 4)) == pytest.approx(4)


def test_kid_is_the_unbiased_estimate() -> None:
    a, b = normal(0, 30, 4), normal(1, 20, 4) + 0.3
    kernel = lambda x, y: (float(x.double() @ y.double()) / 4 + 1) ** 3  # noqa: E731
    within = [
        sum(kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j)
        / (len(s) * (len(s) - 1))
        for s in (a, b)
    ]
    across = sum(kernel(x, y) for x in a for y in b) / 600
    assert discrepancy(a, b) == pytest.approx(sum(within) - 2 * across, rel=1e-4)


def test_neighbours_are_those_of_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(DataError, match="no 5 nearest neighbours; give more"):
        neighbours.radii(b[:5], 5)


def beside(generated: torch.Tensor, real: torch.Tensor, train: torch.Tensor) -> Comparison:
    nothing = torch.zeros(0)

    def seen(images: torch.Tensor) -> Sight:
        return Sight(images, nothing, nothing)

    return Comparison(seen(generated), seen(real), train, torch.ones(10) / 10)


def test_copies_are_told_from_new_images(reference: Reference) -> None:
    train, test = reference.train.images, reference.test.images
    new = memorisation.memorisation(beside(test[:100], test[100:], train))
    assert new["copied"] == 0 and 0.4 < new["nearer"] < 0.6
    half = torch.cat([train[:50], test[:50]])
    mixed = memorisation.memorisation(beside(half, test[100:], train))
    assert mixed["copied"] == 0.5 and 0.7 < mixed["nearer"] < 0.8
    noisy = (train[:100].int() + rng.integers(torch.arange(100), (1, 8, 8), 7) - 3).clamp(0, 255)
    assert memorisation.memorisation(beside(noisy.to(torch.uint8), test, train))["copied"] > 0.9
    far = rng.integers(torch.arange(100), (1, 8, 8), 256).to(torch.uint8)
    assert memorisation.memorisation(beside(far, test, train)) == {"copied": 0.0, "nearer": 0.0}


def test_the_nearest_are_shown_above_their_neighbours(reference: Reference) -> None:
    train, test = reference.train.images, reference.test.images
    shown, found = memorisation.neighbours(torch.cat([test[:30], train[7:9]]), train, 5)
    assert torch.equal(shown[:2], found[:2])
    assert sorted(shown[:2].flatten(1).tolist()) == sorted(train[7:9].flatten(1).tolist())
    away = (shown.double() - found.double()).flatten(1).norm(dim=1)
    assert away.tolist() == sorted(away.tolist()) and away[2] > 0


def test_divergence() -> None:
    even = torch.full((4,), 0.25)
    assert divergence(even, even) == 0
    assert divergence(torch.tensor([1.0, 0, 0, 0]), even) == pytest.approx(np.log(4))
    assert np.isfinite(divergence(even, torch.tensor([0.5, 0.5, 0, 0])))


def test_labels_that_were_asked_for_count(comparisons: dict[str, Comparison]) -> None:
    """A generator that draws other digits than it was asked for teaches nothing."""
    floor = comparisons["floor"]
    wrong = replace(floor.generated, labels=(floor.generated.seen + 1) % 10)
    assert values("classification-accuracy", replace(floor, generated=wrong))["cas"] < 0.3
    assert values("classification-accuracy", floor)["cas"] > 0.6
