"""The shipped judge: what it reads, in which form, and how quickly it can be asked."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from advkit.cli import recipes
from advkit.core.errors import DataError
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.gan import judge as module
from advkit.gan.judge import FILE, are_stacked, coverage, histogram, judge, prepared
from advkit.models.header import read_card


@pytest.fixture
def real_mnist():
    """The folder with MNIST."""
    root = Path(os.environ.get("ADVKIT_DATA", "nowhere"))
    if not (root / "MNIST").is_dir():
        pytest.skip("set ADVKIT_DATA to a folder with MNIST")
    return root


@pytest.fixture
def digits():
    """(100, 1, 8, 8) uint8: bundled digits."""
    return load_data("digits").images[:100]


def test_it_is_the_recipes():
    """The shipped file is small, and its card says what the recipe says."""
    assert FILE.stat().st_size < 1_000_000
    card = read_card(FILE)
    assert card is not None and card.data is not None
    assert (card.data.name, card.data.split, card.data.n) == ("mnist", "train", 60_000)
    values = recipes.load("train/digit-judge")[1].model_dump(mode="json", exclude_unset=True)
    assert values.items() <= card.training.items()
    assert len(judge().hash) == 64


def test_it_reads_the_bundled_digits():
    """They come from other writers and another scanner, and have 64 pixels."""
    test = load_data("digits")
    assert (judge().digits(test.images) == test.labels).float().mean() > 0.9


def test_it_reads_mnist(real_mnist):
    test = load_data("mnist", limit=1000, root=real_mnist)
    assert (judge().digits(test.images) == test.labels).float().mean() >= 0.99


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (1, 64, 50)], ids=str)
def test_any_size_and_colour_in_either_form(shape, digits):
    floats = torch.nn.functional.interpolate(digits[:3].float() / 255, shape[1:], mode="nearest")
    levels = (floats * 255).round().to(torch.uint8).expand(-1, shape[0], -1, -1)
    look = judge().look(levels)
    assert look.features.shape == (3, 64) and look.features.dtype == torch.float32
    assert look.probabilities.shape == (3, 10)
    torch.testing.assert_close(look.probabilities.sum(1), torch.ones(3))
    for same in (levels / 255, levels[:, :1]):  # grey in three channels is the same grey
        torch.testing.assert_close(judge().features(same), look.features, rtol=1e-4, atol=1e-4)


def test_colours_become_their_brightness():
    """By the shares of ITU-R BT.601."""
    colours = torch.rand(5, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    wanted = torch.einsum("ncij,c->nij", colours, torch.tensor([0.299, 0.587, 0.114]))
    torch.testing.assert_close(prepared(colours)[:, 0], wanted)


@pytest.mark.parametrize(
    ("height", "width", "side"), [(8, 8, 20), (19, 4, 20), (20, 7, 28), (28, 28, 28), (9, 50, 28)]
)
def test_small_digits_get_a_margin_and_others_are_stretched(height, width, side):
    ink = prepared(torch.full((2, 1, height, width), 255, dtype=torch.uint8))
    edge = (28 - side) // 2
    wanted = torch.zeros(2, 1, 28, 28)
    wanted[:, :, edge : 28 - edge, edge : 28 - edge] = 1
    torch.testing.assert_close(ink, wanted)


def test_the_batch_changes_nothing(digits, monkeypatch):
    whole = judge().look(digits)
    monkeypatch.setattr(module, "BATCH", 7)
    for parts, seen in ((judge().look(digits), slice(100)), (judge().look(digits[:3]), slice(3))):
        torch.testing.assert_close(parts.features, whole.features[seen], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(parts.probabilities, whole.probabilities[seen], rtol=1e-4, atol=1e-5)


def test_stacked_digits_are_read_one_by_one(digits):
    seen = judge().digits(digits[:30])
    stacked = digits[:30].reshape(10, 3, 8, 8)
    features, modes = judge().read(stacked, stacked=True)
    assert modes.tolist() == [100 * a + 10 * b + c for a, b, c in seen.view(10, 3).tolist()]
    assert torch.equal(judge().modes(stacked), modes)
    torch.testing.assert_close(features.view(30, -1), judge().features(digits[:30]))
    plain, classes = judge().read(digits, stacked=False)
    assert torch.equal(plain, judge().features(digits)) and torch.equal(classes, judge().digits(digits))
    names, ids = tuple(f"{mode:03d}" for mode in range(1000)), torch.arange(10)
    data = Data("toy", "train", stacked, modes, names, ids)
    assert are_stacked(data) and not are_stacked(replace(data, class_names=(*names[:-1], "none")))
    assert not are_stacked(replace(data, images=digits[:10]))


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (2, 2, 8, 8), (1, 8, 8)], ids=str)
def test_what_it_cannot_look_at(shape):
    for look in (judge().look, judge().modes):
        with pytest.raises(DataError):
            look(torch.zeros(shape))


def test_histogram_and_coverage_tell_a_collapse(digits):
    one = digits[:1].expand(100, -1, -1, -1)
    shares, read = histogram(digits), judge().digits(digits)
    assert shares.tolist() == pytest.approx([float((read == digit).float().mean()) for digit in range(10)])
    assert sorted(histogram(one).tolist()) == [0.0] * 9 + [1.0]
    real, alike = (
        judge().features(load_data("digits").images[rows]) for rows in (slice(100), slice(100, 200))
    )
    own, across = (torch.cdist(real.double(), points.double()) for points in (real, alike))
    reach = own.fill_diagonal_(torch.inf).sort(1).values[:, 4]
    assert coverage(real, alike) == pytest.approx((across.amin(1) <= reach).float().mean().item())
    assert coverage(real, real) == 1.0 and coverage(real, judge().features(one)) < 0.2
