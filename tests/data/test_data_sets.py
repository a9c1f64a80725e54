from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from advkit.core.errors import DataError
from advkit.data.dataset import DATASETS, TorchvisionFiles
from advkit.data.load import load_data

DOWNLOADED = [entry.name for entry in DATASETS if entry.facts["files"]]
CUSTOMARY = {"digits": 0.15, "fashion-mnist": 0.1, **dict.fromkeys(("mnist", "stacked-mnist", "kmnist"), 0.3)}
CUSTOMARY |= dict.fromkeys(("cifar10", "cifar100", "svhn"), 8 / 255)


def test_everything_is_registered_and_described() -> None:
    assert {entry.name: entry.facts["threat"].eps for entry in DATASETS} == CUSTOMARY
    for entry in DATASETS:
        assert entry.summary and entry.source and entry.facts["threat"].norm == "linf"


def test_digits_splits() -> None:
    from sklearn.datasets import load_digits

    train, test = load_data("digits", "train"), load_data("digits")
    assert (len(train), len(test)) == DATASETS.entry("digits").facts["sizes"] == (1438, 359)
    bunch = load_digits()
    assert test.labels.tolist() == bunch.target[4::5].tolist()
    assert train.labels[:5].tolist() == bunch.target[[0, 1, 2, 3, 5]].tolist()
    levels = test.images[:, 0].double() * 16 / 255
    assert float((levels - torch.from_numpy(bunch.images[4::5])).abs().max()) <= 0.5 * 16 / 255
    assert test.shape == (1, 8, 8) and test.classes == 10 and set(test.labels.tolist()) == set(range(10))
    assert test.threat is not None and test.threat.eps == 0.15


def test_digits_are_published() -> None:
    """The split and the levels are part of every result on digits: they must never change."""
    assert load_data("digits", "train").fingerprint.startswith("4297b85f")
    assert load_data("digits", "test").fingerprint.startswith("355015fa")


@pytest.mark.parametrize("name", DOWNLOADED)
@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_sets_say_how_to_get_them(
    name: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVKIT_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        load_data(name, split)
    for word in (split, str(tmp_path), f"`advkit data get {name}`", "--data-dir", "ADVKIT_DATA"):
        assert word in str(caught.value)


def test_mnist_format(mnist_folder: Path) -> None:
    train, test = (load_data("mnist", split, root=mnist_folder) for split in ("train", "test"))
    assert (len(train), len(test)) == (4, 2)
    assert train.images[:, 0, 27, 27].tolist() == [0, 1, 2, 3] and train.labels.tolist() == [9, 8, 7, 6]
    assert train.shape == (1, 28, 28) and train.classes == 10


@pytest.mark.parametrize("damage", [b"", b"\0\0\x08\x03", None])
@pytest.mark.parametrize("part", ["images-idx3", "labels-idx1"])
def test_damaged_mnist(mnist_folder: Path, damage: bytes | None, part: str) -> None:
    file = mnist_folder / "MNIST" / "raw" / f"t10k-{part}-ubyte"
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    with pytest.raises(DataError):
        load_data("mnist", root=mnist_folder)
    assert len(load_data("mnist", "train", root=mnist_folder)) == 4


def fake(monkeypatch: pytest.MonkeyPatch, root: Path, place: str, **fields: Any) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).touch()
    reader = SimpleNamespace(**fields)
    monkeypatch.setattr(TorchvisionFiles, "open", lambda self, split, root, download: reader)


@pytest.mark.parametrize(
    ("name", "place"), [("cifar10", "cifar-10-batches-py/test_batch"), ("cifar100", "cifar-100-python/test")]
)
def test_cifar_layout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, place: str) -> None:
    first = np.arange(2 * 3 * 32 * 32, dtype=np.uint8).reshape(2, 3, 32, 32)
    names = [f"class {number}" for number in range(10)]
    fake(monkeypatch, tmp_path, place, data=first.transpose(0, 2, 3, 1), targets=[3, 8], classes=names)
    data = load_data(name, root=tmp_path)
    assert np.array_equal(data.images[:].numpy(), first) and data.labels.tolist() == [3, 8]
    assert data.shape == (3, 32, 32) and data.class_names == tuple(names)


def test_svhn_layout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    last = np.arange(32 * 32 * 3 * 2, dtype=np.uint8).reshape(32, 32, 3, 2)
    images = np.transpose(last, (3, 2, 0, 1))
    fake(monkeypatch, tmp_path, "test_32x32.mat", data=images, labels=np.array([9, 0]))
    data = load_data("svhn", root=tmp_path)
    assert np.array_equal(data.images[:].numpy(), images) and data.labels.tolist() == [9, 0]
    assert data.classes == 10


def test_torchvision_is_asked_for_the_right_thing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torchvision import datasets

    asked = {}
    for entry in DATASETS:
        files = entry.facts["files"]
        if files is not None:
            monkeypatch.setattr(
                datasets, files.kind, lambda root, name=files.name, **words: asked.update({name: words})
            )
            files.open("train", tmp_path, download=False)
    assert asked.pop("svhn") == {"split": "train", "download": False}
    assert set(asked) == set(DOWNLOADED) - {"svhn"}
    assert all(words == {"train": True, "download": False} for words in asked.values())


def test_cifar10_from_npz(tmp_path: Path) -> None:
    images = np.arange(2 * 3 * 32 * 32, dtype=np.uint8).reshape(2, 3, 32, 32)
    for split in ("test", "train"):
        with pytest.raises(DataError):
            load_data("cifar10", split, root=tmp_path)
        np.savez(tmp_path / f"cifar10-{split}.npz", x=images, y=np.array([3, 8]))
        data = load_data("cifar-10", split, root=tmp_path)
        assert (data.name, data.split, len(data), data.class_names[3]) == ("cifar10", split, 2, "cat")
        assert data.threat is not None and np.array_equal(data.images[:].numpy(), images)


@pytest.mark.parametrize(
    ("name", "train", "test"), [("mnist", [5, 0, 4], [7, 2, 1]), ("fashion-mnist", [9, 0, 0], [9, 2, 1])]
)
def test_real_mnist(real_data: Path, name: str, train: list[int], test: list[int]) -> None:
    for split, n, first in (("train", 60_000, train), ("test", 10_000, test)):
        data = load_data(name, split, root=real_data)
        assert (len(data), data.labels[:3].tolist(), data.shape) == (n, first, (1, 28, 28))
        assert int(data.images[:].min()) == 0 and int(data.images[:].max()) == 255


def test_real_cifar10(real_data: Path) -> None:
    data = load_data("cifar10", root=real_data)
    assert len(data) in (9_975, 10_000) and data.labels[:3].tolist() == [3, 8, 8]
    assert data.shape == (3, 32, 32) and data.split == "test"
    assert float(data.batch(torch.arange(1000))[0].mean()) == pytest.approx(0.475, abs=0.01)
