from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from advkit.data.data import Data
from advkit.data.load import as_data
from advkit.errors import DataError

GREY = torch.full((3, 1, 4, 5), 0.5)
LABELS = torch.tensor([0, 2, 1])


def test_data_comes_back_as_it_is() -> None:
    data = as_data(GREY, LABELS)
    assert as_data(data) is data


def test_pair_and_two_arguments_are_the_same() -> None:
    assert as_data((GREY, LABELS)).fingerprint == as_data(GREY, LABELS).fingerprint


def test_description() -> None:
    data = as_data(GREY, LABELS, name="mine")
    assert (data.name, data.split, data.shape, data.threat) == ("mine", "all", (1, 4, 5), None)
    assert data.class_names == ("0", "1", "2") and data.ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_become_float32(dtype: torch.dtype) -> None:
    images = as_data(GREY.to(dtype), LABELS).images
    assert images.dtype == torch.float32 and torch.equal(images[:], GREY)


@pytest.mark.parametrize(
    "images",
    [
        np.full((3, 1, 4, 5), 7, dtype=np.uint8),
        np.full((3, 1, 4, 5), 7, dtype=np.uint8)[:, :, ::-1],
        np.broadcast_to(np.uint8(7), (3, 1, 4, 5)),
        list(np.full((3, 1, 4, 5), 7, dtype=np.uint8)),
        torch.full((3, 1, 4, 5), 7, dtype=torch.uint8),
    ],
    ids=["array", "reversed", "read-only", "list", "tensor"],
)
def test_levels_are_kept(images: Any) -> None:
    data = as_data(images, np.array([0, 2, 1], dtype=">i2"))
    assert data.images.dtype == torch.uint8 and bool((data.images[:] == 7).all())
    assert data.labels.dtype == torch.int64 and data.labels.tolist() == [0, 2, 1]


def test_big_endian_floats_and_gradients() -> None:
    assert torch.equal(as_data(GREY.numpy().astype(">f4"), LABELS).images[:], GREY)
    assert not as_data(GREY.clone().requires_grad_(), LABELS).images[:].requires_grad


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY[0], "four dimensions"),
        (GREY.permute(0, 2, 3, 1), "channels last"),
        (GREY[:0], "empty"),
        (GREY.long(), "type int64"),
        (GREY.bool(), "type bool"),
        (torch.full((3, 1, 4, 5), float("nan")), "NaN"),
        (torch.full((3, 1, 4, 5), float("inf")), "outside"),
        (GREY * 400, "divide them by 255"),
        (GREY - 1, "stretched"),
        (torch.linspace(-2, 2, 60).view(3, 1, 4, 5), "normalisation"),
        ((GREY > 0).to(torch.uint8), "none is above 1"),
        (np.array(["a", "b"]), "not an array of numbers"),
        (np.array([object()]), "not an array of numbers"),
        ([[1, 2], [3]], "not an array of numbers"),
        (None, "not an array of numbers"),
    ],
)
def test_bad_images(images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        as_data(images, LABELS, name="mine")
    assert "'mine'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.eye(3).long(), "argmax"),
        (LABELS.float(), "type float32"),
        (LABELS.bool(), "type bool"),
        (LABELS[:2], "3 images but 2 labels"),
        (-LABELS, "labels from -2"),
        (["cat", "dog", "cat"], "not an array of numbers"),
    ],
)
def test_bad_labels(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_data(GREY, labels)


@pytest.mark.parametrize("alone", [GREY, (GREY,), (GREY, LABELS, LABELS)])
def test_labels_are_asked_for(alone: Any) -> None:
    with pytest.raises(DataError, match="no labels"):
        as_data(alone)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int32, np.float32, np.float64]),
        hnp.array_shapes(min_dims=3, max_dims=5, max_side=4),
        elements=st.integers(0, 3),
    )
)
def test_either_data_or_one_sentence(images: np.ndarray) -> None:
    """Whatever comes in, what comes out is fit for every model, or a fault of the user's is told."""
    try:
        data = as_data(images, np.arange(len(images)))
    except DataError:
        return
    assert isinstance(data, Data)
    pixels, _ = data.batch(torch.arange(len(data)))
    assert pixels.dtype == torch.float32 and pixels.dim() == 4
    assert float(pixels.min()) >= 0 and float(pixels.max()) <= 1
    expected = images / 255 if images.dtype == np.uint8 else images
    assert np.allclose(pixels.numpy(), expected)
