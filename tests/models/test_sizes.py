from __future__ import annotations

import pytest
import torch

from advkit.models.card import Shape
from advkit.models.sizes import Size, growth, transposed


@pytest.mark.parametrize(
    ("shape", "steps", "wanted"),
    [
        ((1, 28, 28), None, [(7, 7), (14, 14), (28, 28)]),
        ((3, 32, 32), None, [(4, 4), (8, 8), (16, 16), (32, 32)]),
        ((3, 32, 32), 2, [(8, 8), (16, 16), (32, 32)]),
        ((1, 8, 8), 2, [(4, 4), (4, 4), (8, 8)]),
        ((1, 9, 14), None, [(5, 7), (9, 14)]),
        ((1, 5, 64), 1, [(5, 64), (5, 64)]),
    ],
)
def test_an_image_grows_to_its_size(shape: Shape, steps: int | None, wanted: list[Size]) -> None:
    assert growth(shape, steps) == wanted


@pytest.mark.parametrize(("before", "after"), [((4, 7), (8, 13)), ((5, 5), (9, 10)), ((6, 6), (6, 6))])
def test_a_transposed_convolution_meets_odd_sizes(before: Size, after: Size) -> None:
    assert transposed(2, 3, 5, before, after)(torch.zeros(1, 2, *before)).shape == (1, 3, *after)
