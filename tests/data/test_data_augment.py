from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advkit.core import rng
from advkit.data.augment import coarsen, shift_and_flip

IDS = torch.arange(64)
IMAGES = rng.uniform(rng.keys(0, "test", IDS), (3, 7, 6)) * 0.9 + 0.1  # no pixel is black


def moved(image: torch.Tensor, down: int, right: int, mirror: bool) -> torch.Tensor:
    """The same by plain slices."""
    _, height, width = image.shape
    image = image.flip(2) if mirror else image
    out = torch.zeros_like(image)
    out[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = image[
        :, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)
    ]
    return out


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_every_image_is_one_of_the_allowed(shift: int, flip: bool) -> None:
    out = shift_and_flip(IMAGES, IDS, 5, 0, shift=shift, flip=flip)
    seen = set()
    for before, after in zip(IMAGES, out, strict=True):
        found = [
            (down, right, mirror)
            for down in range(-shift, shift + 1)
            for right in range(-shift, shift + 1)
            for mirror in ([False, True] if flip else [False])
            if torch.equal(moved(before, down, right, mirror), after)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert {down for down, _, _ in seen} == {right for _, right, _ in seen} == set(range(-shift, shift + 1))
    assert {mirror for _, _, mirror in seen} == ({False, True} if flip else {False})


def test_moves_are_independent_and_even() -> None:
    ids = torch.arange(6000)
    spot = torch.zeros(6000, 1, 5, 4)
    spot[:, 0, 2, 1] = 1.0
    out = shift_and_flip(spot, ids, 0, 0, shift=1, flip=True)
    counts = out[:, 0].sum(0) / 6000
    # a third for each row; columns 1 and 2 are the spot and its mirror image, moved by -1, 0 or 1
    row, column = torch.tensor([0, 1, 1, 1, 0.0]) / 3, torch.tensor([1, 2, 2, 1]) / 6
    assert torch.allclose(counts, row[:, None] * column, atol=0.02)


@given(rows=st.lists(st.integers(0, 63), min_size=1, max_size=20), step=st.integers(0, 1000))
def test_the_batch_does_not_matter(rows: list[int], step: int) -> None:
    index = torch.tensor(rows)
    whole = shift_and_flip(IMAGES, IDS, step, 3, shift=2, flip=True)
    part = shift_and_flip(IMAGES[index], IDS[index], torch.full((len(rows),), step), 3, shift=2, flip=True)
    assert torch.equal(whole[index], part)


def test_seed_and_step_matter_and_nothing_to_do_is_free() -> None:
    first = shift_and_flip(IMAGES, IDS, 0, 0, shift=2)
    assert not torch.equal(first, shift_and_flip(IMAGES, IDS, 1, 0, shift=2))
    assert not torch.equal(first, shift_and_flip(IMAGES, IDS, 0, 1, shift=2))
    assert shift_and_flip(IMAGES, IDS, 0, 0) is IMAGES


def test_half_of_the_images_lose_what_is_finer_than_the_grid() -> None:
    out = coarsen(IMAGES, IDS, 5, 0, side=3)
    kept = (out == IMAGES).all(3).all(2).all(1)
    assert 16 < int(kept.sum()) < 48
    rough = [images[:, :, 1:, :] - images[:, :, :-1, :] for images in (IMAGES[~kept], out[~kept])]
    assert rough[1].abs().mean() < rough[0].abs().mean() / 2
    assert out.min() >= IMAGES.min() and out.max() <= IMAGES.max()
    flat = torch.full((64, 1, 8, 8), 0.3)
    torch.testing.assert_close(coarsen(flat, IDS, 5, 0, side=4), flat)


def test_which_images_become_coarse_follows_from_seed_id_and_step() -> None:
    whole = coarsen(IMAGES, IDS, 5, 0, side=3)
    assert torch.equal(coarsen(IMAGES[10:20], IDS[10:20], 5, 0, side=3), whole[10:20])
    for step, seed in ((6, 0), (5, 1)):
        assert not torch.equal(coarsen(IMAGES, IDS, step, seed, side=3), whole)
    assert coarsen(IMAGES, IDS, 5, 0) is IMAGES
