"""Where a patch lies, what it covers, and what is printed."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from advkit.core import rng
from advkit.core.levels import as_image
from advkit.report.figures.universal import write_print
from advkit.trained_attacks.universal.change import Place, paste

X = torch.zeros(4, 3, 40, 60)
WHITE = torch.ones(1, 3, 9, 9)


def at(scale=0.5, angle=0.0, across=0.5, down=0.5, n=4):
    return Place(*(torch.full((n,), value) for value in (scale, angle, across, down)))


@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_a_circle_covers_its_area_and_a_square_its_own(angle):
    circle = paste(WHITE, X, at(angle=angle), "circle")
    square = paste(WHITE, X, at(angle=angle), "square")
    diameter = 0.5 * 40
    assert circle[0, 0].sum() == pytest.approx(math.pi / 4 * diameter**2, rel=0.01)
    assert square[0, 0].sum() == pytest.approx(diameter**2, rel=0.02)


@pytest.mark.parametrize(("across", "down"), [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.3, 0.7)])
def test_the_whole_patch_is_inside_wherever_it_is(across, down):
    seen = paste(WHITE, X, at(across=across, down=down), "circle")[0, 0]
    assert seen.sum() == pytest.approx(math.pi / 4 * 20**2, rel=0.01)
    rows, columns = (seen > 0.5).nonzero().unbind(1)
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(10 + down * 20, abs=0.51)
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(10 + across * 40, abs=0.51)


def test_outside_the_patch_nothing_changes_and_inside_it_is_the_patch():
    x = rng.uniform(torch.arange(4), (3, 40, 60))
    patch = rng.uniform(torch.tensor([9]), (3, 20, 20))
    seen = paste(patch, x, at(), "square")  # 20 pixels of the patch on 20 of the image
    assert torch.allclose(seen[:, :, 11:29, 21:39], patch[:, :, 1:-1, 1:-1].expand(4, -1, -1, -1), atol=1e-5)
    outside = torch.ones(40, 60, dtype=torch.bool)
    outside[9:31, 19:41] = False
    assert torch.equal(seen[:, :, outside], x[:, :, outside])
    turned = paste(patch, x, at(angle=90.0), "square")
    assert torch.allclose(
        turned[0, :, 11:29, 21:39], torch.rot90(patch[0], 1, (1, 2))[:, 1:-1, 1:-1], atol=1e-4
    )


def test_places_are_drawn_within_the_limits_by_sample():
    key = rng.keys(0, "places", torch.arange(400))
    place = Place.drawn(key, (0.2, 0.4), 20)
    assert 0.2 <= place.scale.min() < 0.21 and 0.39 < place.scale.max() <= 0.4
    assert -20 <= place.angle.min() < -19 and 19 < place.angle.max() <= 20
    assert place.across.min() < 0.01 and place.across.max() > 0.99 and place.down.std() > 0.25
    assert torch.equal(Place.drawn(key[7:8], (0.2, 0.4), 20).angle, place.angle[7:8])
    patch, x = rng.uniform(torch.tensor([9]), (3, 5, 5)), rng.uniform(torch.arange(400), (3, 6, 7))
    seen = paste(patch, x, place, "circle")
    assert seen.min() >= 0 and seen.max() <= 1
    assert torch.equal(paste(patch, x[5:6], place.take(torch.tensor([5])), "circle"), seen[5:6])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_print_has_the_patch_exactly_and_transparent_corners(channels, tmp_path):
    levels = rng.integers(torch.tensor([1]), (channels, 7, 7), 256)[0].to(torch.uint8)
    write_print(tmp_path / "circle.png", as_image(levels), "circle", 350)
    read = np.array(Image.open(tmp_path / "circle.png"))
    assert read.shape == (350, 350, 4)
    centres = read[25::50, 25::50, :3].transpose(2, 0, 1)
    assert (centres == levels.expand(3, -1, -1).numpy()).all()
    assert read[0, 0, 3] == read[-1, 0, 3] == 0 and read[175, 1, 3] == read[175, 175, 3] == 255
    assert (read[..., 3] / 255).mean() == pytest.approx(math.pi / 4, abs=0.002)
    write_print(tmp_path / "square.png", as_image(levels), "square", 350)
    assert (np.array(Image.open(tmp_path / "square.png"))[..., 3] == 255).all()
