from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advkit.core.errors import ConfigError
from advkit.models.card import Shape
from advkit.models.layers import growth, halvings, refuse_small, transposed


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(0, 2), *[st.sampled_from([7, 8, 9]) | st.integers(1, 70)] * 2),
    steps=st.none() | st.integers(0, 6),
    kernel=st.sampled_from([1, 3, 5]),
)
def test_an_image_grows_to_its_size(shape: Shape, steps: int | None, kernel: int) -> None:
    _, height, width = shape

    def halved(times: int) -> tuple[int, int]:
        return -(-height // 2**times), -(-width // 2**times)  # rounded up

    most = next(times for times in range(9) if min(halved(times)) < 8)
    assert halvings(shape) == most
    count = most if steps is None else steps
    sizes = growth(shape, steps)
    assert sizes == [halved(min(count - step, most)) for step in range(count + 1)]
    assert most == 0 or 4 <= min(halved(most)) <= 7
    x = torch.zeros(1, 2, *sizes[0])
    for before, after in itertools.pairwise(sizes):
        layer = transposed(2, 2, kernel, before, after)
        assert layer.kernel_size == (kernel, kernel)
        x = layer(x)
        assert x.shape == (1, 2, *after)
    with contextlib.nullcontext() if shape[0] and most else pytest.raises(ConfigError):
        refuse_small(shape)
