from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from advkit.core.errors import DataError
from advkit.data.data import Data
from advkit.data.load import as_data

GREY = torch.full((3, 1, 4, 5), 0.5)
LABELS = torch.tensor([0, 2, 1])


def test_pairs_two_arguments_and_data_are_the_same() -> None:
    data = as_data(GREY, LABELS, name="mine")
    assert as_data(data) is data and as_data((GREY, LABELS)).fingerprint == data.fingerprint
    assert (data.name, data.split, data.shape, data.threat) == ("mine", "all", (1, 4, 5), None)
    assert data.class_names == ("0", "1", "2") and data.ids.tolist() == [0, 1, 2] and not data.classes_known


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
    assert data.labels.dtype == torch.int64 and data.labels.tolist() == [0, 2, 1] and not data.notes
    for kind in (">i4", np.uint16, np.int64):
        again = as_data(np.asarray(images).astype(kind), LABELS)
        assert again.fingerprint == data.fingerprint
        assert [note.code for note in again.notes] == ["integer-levels"]


def test_floats_become_float32_without_gradients() -> None:
    kinds = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    for grey in [GREY.numpy().astype(">f4"), GREY.clone().requires_grad_(), *map(GREY.to, kinds)]:
        images = as_data(grey, LABELS).images[:]
        assert images.dtype == torch.float32 and torch.equal(images, GREY) and not images.requires_grad


@pytest.mark.parametrize(
    ("images", "labels", "key"),
    [
        (GREY[0, 0], LABELS, "shape"),
        (GREY[0], LABELS, "1 images but 3 labels"),
        (GREY[:0], LABELS, "empty"),
        (GREY.long(), LABELS, "int64"),
        (GREY.long() + 256, LABELS, "int64"),
        (GREY.long() - 1, LABELS, "int64"),
        (GREY.bool(), LABELS, "bool"),
        (torch.full((3, 1, 4, 5), float("nan")), LABELS, "NaN"),
        (torch.full((3, 1, 4, 5), float("inf")), LABELS, "inf"),
        (torch.linspace(0, 255, 60).view(3, 1, 4, 5), LABELS, "divide"),
        (torch.linspace(0, 255.5, 60).view(3, 1, 4, 5), LABELS, "normalisation"),
        (torch.linspace(-1, 1, 60).view(3, 1, 4, 5), LABELS, r"\(x \+ 1\) / 2"),
        (torch.linspace(-1, 1.1, 60).view(3, 1, 4, 5), LABELS, "normalisation"),
        (torch.linspace(-0.1, 2, 60).view(3, 1, 4, 5), LABELS, "normalisation"),
        ((GREY > 0).to(torch.uint8), LABELS, "255"),
        (np.array(["a", "b"]), LABELS, "array"),
        (np.array([object()]), LABELS, "array"),
        ([[1, 2], [3]], LABELS, "array"),
        (None, LABELS, "array"),
        (GREY, torch.eye(3).long(), "argmax"),
        (GREY, LABELS + 0.5, "float32"),
        (GREY, LABELS * float("nan"), "float32"),
        (GREY, torch.ones(3, 4), "several"),
        (torch.linspace(0, 1.05, 60).view(3, 1, 4, 5), LABELS, "clip"),
        (torch.linspace(0, 1.00001, 60).view(3, 1, 4, 5), LABELS, r"1\.00001.*clip"),
        (GREY, LABELS[:2], "3 images but 2 labels"),
        (GREY, -LABELS, "-2"),
        (GREY, LABELS.to(torch.complex64), "complex64"),
        (GREY, ["cat", "dog", "cat"], "array"),
        (GREY, None, "labels"),
        ((GREY,), None, "labels"),
        ((GREY, LABELS, LABELS), None, "labels"),
    ],
)
def test_whatever_is_wrong_is_said_in_one_sentence(images: Any, labels: Any, key: str) -> None:
    with pytest.raises(DataError, match=key) as caught:
        as_data(images, labels, name="mine")
    assert "'mine'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("low", "high"), [(-3e-8, 1), (0, 1 + 1.2e-7), (-9e-7, 1 + 9e-7)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_rounding_outside_the_box_is_clamped_and_noted(low: float, high: float, kind: torch.dtype) -> None:
    images = torch.linspace(low, high, 60, dtype=torch.float64).view(3, 1, 4, 5).to(kind)
    data = as_data(images, LABELS)
    assert float(data.images[:].min()) >= 0 and float(data.images[:].max()) <= 1
    assert torch.allclose(data.images[:], images.float(), atol=2e-6)
    assert [note.code for note in data.notes] == ["clamped"] and data.facts.notes == data.notes


@pytest.mark.parametrize(
    "labels",
    [
        LABELS[:, None],
        LABELS[None],
        LABELS.view(3, 1, 1),
        LABELS.double(),
        LABELS.to(torch.uint8).numpy()[:, None],
        [0, 2.0, 1],
        np.array([0, 2, 1], dtype=object),
        [[0], [2], [1]],
        list(LABELS),
        (np.int64(0), 2, 1),
    ],
)
def test_labels_in_any_form(labels: Any) -> None:
    data = as_data(GREY, labels)
    assert data.labels.tolist() == [0, 2, 1] and data.labels.dtype == torch.int64 and not data.notes
    assert as_data(GREY, LABELS == 2).labels.tolist() == [0, 1, 0]


def test_layouts_mean_the_same() -> None:
    colours = torch.arange(3 * 3 * 4 * 5, dtype=torch.uint8).view(3, 3, 4, 5)
    last = colours.permute(0, 2, 3, 1).contiguous()
    for images in (last, last.numpy(), list(last), last.permute(0, 3, 1, 2),
                   colours.to(memory_format=torch.channels_last)):  # fmt: skip
        data = as_data(images, LABELS)
        assert torch.equal(data.images[:], colours) and data.batch(torch.arange(2))[0].is_contiguous()
        moved = tuple(np.shape(images)) == (3, 4, 5, 3)
        assert [note.code for note in data.notes] == ["channels-last"] * moved
    for open_to_both in (torch.rand(3, 3, 3, 3), torch.rand(3, 8, 8, 4)):
        data = as_data(open_to_both, LABELS)
        assert data.shape == open_to_both.shape[1:] and [n.code for n in data.notes] == ["channels-first"]
    flat = as_data(GREY[:, 0], LABELS)
    assert flat.shape == (1, 4, 5) and flat.fingerprint == as_data(GREY, LABELS).fingerprint


def test_the_edges_of_the_ranges_are_allowed() -> None:
    for low, high in ((0.0, 1.0), (0.0, 0.0), (1.0, 1.0)):
        ends = torch.linspace(low, high, 60).view(3, 1, 4, 5)
        assert torch.equal(as_data(ends, LABELS).images[:], ends)
    black = torch.zeros(3, 3, 4, 1)  # either may be the channels: taken as it is
    assert as_data(black, LABELS).shape == (3, 4, 1)


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
    noted = {note.code for note in data.notes}
    expected = images / 255 if images.dtype == np.uint8 or "integer-levels" in noted else images
    if "channels-last" in noted:
        expected = np.moveaxis(expected, -1, 1)
    assert np.allclose(pixels.numpy(), expected.reshape(pixels.shape))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_copies_are_noted_from_one_in_a_hundred_on(kind: torch.dtype) -> None:
    levels = (torch.arange(200 * 9).view(200, 1, 3, 3) % 251).to(torch.uint8)
    images = levels if kind == torch.uint8 else levels / 255
    for copies, noted in ((0, False), (2, False), (3, True), (199, True)):
        several = images.clone()
        several[1 : 1 + copies] = images[0]
        data = as_data(several, torch.zeros(200))
        assert not as_data(several[:99], torch.zeros(99)).notes
        texts = [note.text for note in data.notes if note.code == "copies"]
        assert bool(texts) == noted and all(str(copies) in text for text in texts)
