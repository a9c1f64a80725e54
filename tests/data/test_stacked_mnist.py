"""Stacked MNIST, made of the files of MNIST."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from advkit.core.errors import DataError
from advkit.data.load import load_data
from advkit.data.sets import downloaded


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloaded, "STACKED_SIZES", {"train": 500, "test": 60})


def test_channels_are_digits_of_the_same_split_and_the_label_names_them(
    mnist_folder: Path, few: None
) -> None:
    """Image i of the toy files has level i and label 9 - i."""
    train, test = (load_data("stacked-mnist", split, root=mnist_folder) for split in ("train", "test"))
    for data, count, there in ((train, 500, 4), (test, 60, 2)):
        assert data.shape == (3, 28, 28) and len(data) == count and data.images.dtype == torch.uint8
        levels = data.images[:, :, 5, 5].long()
        assert torch.equal(data.images[:].long(), levels[:, :, None, None].expand(-1, -1, 28, 28))
        assert torch.equal(data.labels, (9 - levels) @ torch.tensor([100, 10, 1]))
        assert set(levels.flatten().tolist()) == set(range(there))
    assert len(train.labels.unique()) == 64  # the channels are independent
    assert (train.classes, train.class_names[7], train.class_names[-1]) == (1000, "007", "999")


def test_it_is_the_same_every_time_and_a_larger_one_begins_alike(
    mnist_folder: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_data("stacked-mnist", "train", root=mnist_folder)
    assert load_data("stacked-mnist", "train", root=mnist_folder).fingerprint == first.fingerprint
    monkeypatch.setattr(downloaded, "STACKED_SIZES", {"train": 700, "test": 60})
    larger = load_data("stacked-mnist", "train", root=mnist_folder)
    assert torch.equal(larger.images[:500], first.images[:])


def test_the_published_set_is_fixed(real_data: Path) -> None:
    """Figures on it compare only while nothing in it changes."""
    data = load_data("stacked-mnist", "test", root=real_data)
    assert len(data) == 26_000 and len(data.labels.unique()) == 1000
    assert data.labels[:5].tolist() == [277, 775, 340, 336, 658]


def test_missing_files_are_fetched_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_data("stacked-mnist", root=tmp_path)
