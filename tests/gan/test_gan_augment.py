"""Differentiable augmentation, and its probability as it adapts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from advkit import rng
from advkit.data.data import Data
from advkit.gan.adversarial import GanGame
from advkit.gan.augment import ADAPT_EVERY, CHANGES, SPEED, Augment

CPU = torch.device("cpu")
IMAGES = rng.uniform(torch.arange(12), (3, 16, 16)) * 0.5 + 0.25


@pytest.mark.parametrize("name", CHANGES)
def test_each_image_is_changed_in_its_own_way_and_gradients_pass(name: str) -> None:
    images = IMAGES[:1].repeat(12, 1, 1, 1).requires_grad_()
    with rng.scope("cpu", 0, "test"):
        changed = CHANGES[name](images)
    assert changed.shape == images.shape
    assert len({tuple(row.flatten().tolist()) for row in changed.detach()}) > 6
    (gradient,) = torch.autograd.grad(changed.square().sum(), images)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", CHANGES)
def test_nothing_is_changed_at_probability_nought(name: str) -> None:
    augment = Augment((name,), 0.0, None, 8, CPU)
    assert torch.equal(augment(IMAGES), IMAGES)


def test_about_as_many_are_changed_as_the_probability_says() -> None:
    many = IMAGES[:1].expand(2000, 3, 16, 16)
    with rng.scope("cpu", 0, "test"):
        changed = Augment(("brightness",), 0.3, None, 8, CPU)(many)
    share = (changed != many).flatten(1).any(1).float().mean()
    assert abs(float(share) - 0.3) < 0.04


def test_a_shift_moves_whole_pixels() -> None:
    with rng.scope("cpu", 0, "test"):
        moved = CHANGES["shift"](IMAGES)
    for before, after in zip(IMAGES, moved, strict=True):
        rows, columns = after.sum(0).sum(1).nonzero()[:, 0], after.sum(0).sum(0).nonzero()[:, 0]
        part = after[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        down = 16 - len(rows) if rows[0] == 0 else 0
        right = 16 - len(columns) if columns[0] == 0 else 0
        assert torch.equal(part, before[:, down : down + len(rows), right : right + len(columns)])
        assert 16 - len(rows) <= 2 and 16 - len(columns) <= 2


def test_a_hole_is_at_most_half_as_wide_as_the_image() -> None:
    with rng.scope("cpu", 0, "test"):
        holes = CHANGES["cutout"](IMAGES)[:, 0] == 0
    assert holes.flatten(1).any(1).all()
    assert holes.any(1).sum(1).max() <= 8 and holes.any(2).sum(1).max() <= 8


@pytest.mark.parametrize(("verdict", "wanted"), [(1.0, 3), (-1.0, 0)])
def test_the_probability_follows_the_discriminators_certainty(verdict: float, wanted: int) -> None:
    augment = Augment(("shift",), 1.0, 0.6, 50, CPU)
    for step in range(3 * ADAPT_EVERY):
        augment.adapt(torch.full((50,), verdict), step)
    assert augment.probability.item() == pytest.approx(wanted * ADAPT_EVERY * 50 / SPEED)


def test_without_a_target_it_stays() -> None:
    augment = Augment(("shift",), 0.7, None, 50, CPU)
    for step in range(8):
        augment.adapt(torch.ones(50), step)
    assert augment.probability.item() == pytest.approx(0.7)


def test_the_adapted_probability_is_part_of_the_state(data: Data, config: Callable) -> None:
    settings = config(augment=("shift", "brightness"), augment_target=0.6)
    game, other = (GanGame(settings, data, CPU) for _ in range(2))
    game.augment.probability.fill_(0.5)
    for _ in range(6):
        game.play()
    other.restore(copy.deepcopy(game.state()))
    assert other.augment.probability == game.augment.probability != 0.5
    one, same = (torch.stack([each.play() for _ in range(3)]) for each in (game, other))
    assert torch.equal(one, same)
