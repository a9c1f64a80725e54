"""Differentiable augmentation, and its probability as it adapts."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from torch import Tensor

from advkit.core import rng
from advkit.gan.adversarial import GanGame
from advkit.gan.augment import CHANGES, Augment

CPU = torch.device("cpu")


def changed(name: str, images: Tensor) -> Tensor:
    with rng.scope("cpu", 0, "test"):
        return CHANGES[name](images)


@pytest.mark.parametrize("name", CHANGES)
def test_gradients_pass_and_nothing_is_changed_at_probability_nought(name):
    images = rng.uniform(torch.arange(12), (3, 16, 16)).requires_grad_()
    (gradient,) = torch.autograd.grad(changed(name, images).square().sum(), images)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    assert torch.equal(Augment((name,), 0.0, None, 8, CPU)(images), images)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("brightness", -0.5, 0.5), ("contrast", 0.5, 1.5), ("saturation", 0.0, 2.0)]
)
def test_colours_move_by_one_uniform_number_an_image(name, low, high):
    images = rng.uniform(torch.arange(2000), (3, 4, 5))
    mean, grey = images.mean((1, 2, 3), keepdim=True), images.mean(1, keepdim=True)
    still, moving = {
        "brightness": (images, torch.ones_like(images)),
        "contrast": (mean, images - mean),
        "saturation": (grey, images - grey),
    }[name]
    after = changed(name, images)
    drawn = ((after - still) * moving).sum((1, 2, 3)) / moving.square().sum((1, 2, 3))
    torch.testing.assert_close(after, still + drawn.view(-1, 1, 1, 1) * moving, rtol=1e-4, atol=1e-5)
    spread, span = drawn.sort().values, high - low
    assert low - 1e-4 < spread[0] < low + 0.01 * span and high - 0.01 * span < spread[-1] < high + 1e-4
    even = torch.linspace(low, high, len(spread))
    assert (spread - even).abs().max() < 0.05 * span


def test_a_shift_moves_whole_pixels_by_up_to_an_eighth_and_black_comes_in():
    rows, columns = torch.meshgrid(torch.arange(1.0, 17), torch.arange(1.0, 25), indexing="ij")
    moved = changed("shift", torch.stack([rows, columns]).expand(2000, 2, 16, 24))
    down, right = (moved[:, 0, 8, 12] - 9).long(), (moved[:, 1, 8, 12] - 13).long()
    assert {*zip(down.tolist(), right.tolist(), strict=True)} == {*product(range(-2, 3), range(-3, 4))}
    there = torch.stack([rows + down.view(-1, 1, 1), columns + right.view(-1, 1, 1)], 1)
    inside = ((there >= 1) & (there <= torch.tensor([16, 24]).view(2, 1, 1))).all(1, keepdim=True)
    assert torch.equal(moved, torch.where(inside, there, 0.0))
    assert len(changed("shift", torch.rand(1, 1, 3, 3).expand(200, 1, 3, 3)).unique(dim=0)) == 9


def test_a_hole_reaches_a_quarter_of_the_side_around_any_pixel():
    black = changed("cutout", torch.ones(2000, 1, 16, 24))[:, 0] == 0
    down, across = black.any(2), black.any(1)
    assert torch.equal(black, down[:, :, None] & across[:, None])
    for seen, side, reach in ((down, 16, 4), (across, 24, 6)):
        wanted = {tuple(abs(at - middle) < reach for at in range(side)) for middle in range(side)}
        assert set(map(tuple, seen.tolist())) == wanted


def test_about_as_many_are_changed_as_the_probability_says():
    many = torch.full((2000, 3, 4, 4), 0.5)
    with rng.scope("cpu", 0, "test"):
        after = Augment(("brightness",), 0.3, None, 8, CPU)(many)
    assert abs(float((after != many).flatten(1).any(1).float().mean()) - 0.3) < 0.04


def test_the_probability_is_steered_to_a_mean_sign_of_the_verdicts():
    """After every fourth step by 4 * batch size / 500,000 (Karras et al. 2020), inside [0, 1]."""
    augment, still = Augment(("shift",), 0.7, 0.25, 25_000, CPU), Augment(("shift",), 0.7, None, 9, CPU)
    bias = torch.tensor([2.0, -2.0, 0.4]).repeat_interleave(40)[:, None]
    verdicts, wanted, seen = rng.normal(torch.arange(120), (5,)) + bias, 0.0, []
    for step in range(120):
        still.adapt(verdicts[step], step)
        augment.adapt(verdicts[step], step)
        if step % 4 == 3:
            above = verdicts[step - 3 : step + 1].sign().mean() > 0.25
            wanted = min(1.0, max(0.0, wanted + (0.2 if above else -0.2)))
            seen.append(round(wanted, 6))
        assert augment.probability.item() == pytest.approx(wanted, abs=1e-6)
    assert {0.0, 1.0} < set(seen) and still.probability.item() == pytest.approx(0.7)


def test_the_adapted_probability_is_part_of_the_state(data, config):
    settings = config(augment=("shift", "brightness"), augment_target=0.6)
    game, other = (GanGame(settings, data, CPU) for _ in range(2))
    game.augment.probability.fill_(0.5)
    for _ in range(6):
        game.update()
    other.restore(copy.deepcopy(game.state()))
    assert other.augment.probability == game.augment.probability != 0.5
    one, same = (torch.stack([each.update() for _ in range(3)]) for each in (game, other))
    assert torch.equal(one, same)
    assert (one[:, 4] - 0.5).abs().max() < 0.01 and (GanGame(config(), data, CPU).update()[4]) == 0
