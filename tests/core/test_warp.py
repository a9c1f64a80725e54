import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from advkit.core import rng
from advkit.core.warp import mapped, turn_and_shift

X = rng.uniform(torch.arange(3), (2, 6, 6))
NONE = torch.zeros(3)


def test_nothing_changes_nothing():
    assert torch.allclose(turn_and_shift(X, NONE, NONE, NONE, "zeros"), X, atol=1e-6)


def test_a_quarter_turn_is_counter_clockwise():
    turned = turn_and_shift(X, NONE + 90, NONE, NONE, "zeros")
    assert torch.allclose(turned, torch.rot90(X, 1, (2, 3)), atol=1e-5)


def test_shifts_are_whole_pixels_to_the_right_and_down():
    moved = turn_and_shift(X, NONE, NONE + 2, NONE - 1, "zeros")
    assert torch.allclose(moved[:, :, :-1, 2:], X[:, :, 1:, :-2], atol=1e-6)
    assert moved[:, :, :, :2].amax() < 1e-6 and moved[:, :, -1].amax() < 1e-6


@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_other_paddings_leave_no_gap(padding):
    white = torch.ones_like(X)
    moved = turn_and_shift(white, NONE + 30, NONE + 1.5, NONE, padding)
    assert torch.allclose(moved, white, atol=1e-6)
    assert turn_and_shift(white, NONE + 30, NONE, NONE, "zeros").amin() < 0.5


def test_images_need_not_be_square():
    wide = rng.uniform(torch.arange(2), (1, 4, 8))
    half = turn_and_shift(wide, torch.full((2,), 180.0), torch.zeros(2), torch.zeros(2), "zeros")
    assert torch.allclose(half, wide.flip(2, 3), atol=1e-5)
    quarter = turn_and_shift(wide, torch.full((2,), 90.0), torch.zeros(2), torch.zeros(2), "zeros")
    assert torch.allclose(quarter[:, :, :, 2:6], torch.rot90(wide[:, :, :, 2:6], 1, (2, 3)), atol=1e-5)


def test_affine_maps_are_those_of_scipy():
    x = rng.uniform(torch.arange(20), (1, 4, 7))
    maps = rng.normal(rng.keys(0, "maps", torch.arange(20)), (6,))
    found = mapped(x, *maps.T)
    below, right = np.mgrid[:4, :7] - np.array([1.5, 3.0]).reshape(2, 1, 1)
    for row, (a, b, c, d, across, down) in enumerate(maps.tolist()):
        places = c * right + d * below + down + 1.5, a * right + b * below + across + 3
        wanted = map_coordinates(x[row, 0].numpy(), places, order=1, mode="grid-constant")
        assert np.allclose(found[row, 0].numpy(), wanted, atol=1e-5)


def test_a_row_does_not_depend_on_the_rows_beside_it():
    angle, across, down = torch.tensor([11.0, -7.3, 29.0]), torch.tensor([0.3, 2, -1]), NONE + 0.7
    whole = turn_and_shift(X, angle, across, down, "zeros")
    for row in range(3):
        one = slice(row, row + 1)
        assert torch.equal(turn_and_shift(X[one], angle[one], across[one], down[one], "zeros"), whole[one])
