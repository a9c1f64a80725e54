"""The shipped judge: what it reads, in which form, and how quickly it can be asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from advkit import recipes
from advkit.data.load import load_data
from advkit.errors import DataError
from advkit.gan import judge as module
from advkit.gan.judge import FILE, coverage, histogram, judge, prepared
from advkit.models.checkpoint import read_card


@pytest.fixture
def real_mnist() -> Path:
    """The folder with MNIST."""
    root = Path(os.environ.get("ADVKIT_DATA", "nowhere"))
    if not (root / "MNIST").is_dir():
        pytest.skip("set ADVKIT_DATA to a folder with MNIST")
    return root


@pytest.fixture
def digits() -> torch.Tensor:
    """(100, 1, 8, 8) uint8: bundled digits."""
    return load_data("digits").images[:100]


def test_it_is_the_recipes() -> None:
    """The shipped file is small, and its card says what the recipe says."""
    assert FILE.stat().st_size < 1_000_000
    card = read_card(FILE)
    assert card is not None and card.data is not None
    assert (card.data.name, card.data.split, card.data.n) == ("mnist", "train", 60_000)
    values = recipes.load("train/digit-judge")[1].model_dump(mode="json", exclude_unset=True)
    assert values.items() <= card.training.items()
    assert len(judge().hash) == 64


def test_it_reads_the_bundled_digits() -> None:
    """They come from other writers and another scanner, and have 64 pixels."""
    test = load_data("digits")
    assert (judge().digits(test.images) == test.labels).float().mean() > 0.9


def test_it_reads_mnist(real_mnist: Path) -> None:
    test = load_data("mnist", limit=1000, root=real_mnist)
    assert (judge().digits(test.images) == test.labels).float().mean() >= 0.99


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (1, 64, 50)], ids=str)
def test_any_size_and_colour_in_either_form(shape: tuple[int, int, int], digits: torch.Tensor) -> None:
    floats = torch.nn.functional.interpolate(digits[:3].float() / 255, shape[1:], mode="nearest")
    levels = (floats * 255).round().to(torch.uint8).expand(-1, shape[0], -1, -1)
    assert prepared(levels).shape == (3, 1, 28, 28)
    look = judge().look(levels)
    assert look.features.shape == (3, 64) and look.features.dtype == torch.float32
    assert look.probabilities.shape == (3, 10)
    torch.testing.assert_close(look.probabilities.sum(1), torch.ones(3))
    again = judge().look(levels / 255)
    torch.testing.assert_close(again.features, look.features, rtol=1e-4, atol=1e-4)
    if shape[0] == 3:  # grey in three channels is the same grey
        torch.testing.assert_close(judge().features(levels[:, :1]), look.features, rtol=1e-4, atol=1e-4)


def test_the_batch_changes_nothing(digits: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judge().look(digits)
    assert torch.equal(judge().features(digits), whole.features)
    monkeypatch.setattr(module, "BATCH", 7)
    parts = judge().look(digits)
    torch.testing.assert_close(parts.features, whole.features, rtol=1e-5, atol=1e-5)
    assert torch.equal(parts.probabilities.argmax(1), whole.probabilities.argmax(1))


def test_stacked_digits_are_read_one_by_one(digits: torch.Tensor) -> None:
    seen = judge().digits(digits[:30])
    stacked = digits[:30].reshape(10, 3, 8, 8)
    features, modes = judge().look_stacked(stacked)
    assert modes.tolist() == [100 * a + 10 * b + c for a, b, c in seen.view(10, 3).tolist()]
    assert torch.equal(judge().modes(stacked), modes)
    torch.testing.assert_close(features.view(30, -1), judge().features(digits[:30]))


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (2, 2, 8, 8), (1, 8, 8)], ids=str)
def test_what_it_cannot_look_at(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="the judge cannot look at"):
        judge().look(torch.zeros(shape))
    with pytest.raises(DataError, match="3 channels"):
        judge().modes(torch.zeros(2, 1, 8, 8))


def test_histogram_and_coverage_tell_a_collapse(digits: torch.Tensor) -> None:
    shares = histogram(digits)
    assert shares.shape == (10,) and shares.sum().item() == pytest.approx(1) and (shares > 0).all()
    one = digits[:1].expand(100, -1, -1, -1)
    assert sorted(histogram(one).tolist()) == [0.0] * 9 + [1.0]
    features = judge().features(digits)
    others = judge().features(load_data("digits").images[100:200])
    assert coverage(features, features) == 1.0
    assert coverage(features, judge().features(one)) < 0.2 < 0.8 < coverage(features, others)
