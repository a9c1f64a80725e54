from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advkit.core.errors import DataError
from advkit.data.load import as_splits, load_data, load_splits

X = np.arange(4 * 5 * 6 * 3, dtype=np.uint8).reshape(4, 5, 6, 3)
Y = np.array([0, 1, 2, 1])


def saved(path: Path, **arrays: Any) -> str:
    np.savez_compressed(path / "set.npz", **arrays)
    return f"npz:{path / 'set.npz'}"


@pytest.mark.parametrize(
    "keys",
    [
        ("x", "y"),
        ("images", "labels"),
        ("X", "Y"),
        ("data", "targets"),
        ("image", "label"),
        ("arr_0", "arr_1"),
    ],
)
def test_layouts_mean_the_same(tmp_path: Path, keys: tuple[str, str]) -> None:
    first = X.transpose(0, 3, 1, 2)
    for images in (X, first):
        data = load_data(saved(tmp_path, **{keys[0]: images, keys[1]: Y}))
        assert data.shape == (3, 5, 6) and np.array_equal(data.images[:].numpy(), first)
    floats = load_data(saved(tmp_path, x=X / 255, y=Y))
    assert np.allclose(floats.images[:].numpy(), first / 255)
    grey = load_data(saved(tmp_path, x=X[..., 0], y=Y))
    assert grey.shape == (1, 5, 6) and np.array_equal(grey.images[:, 0].numpy(), X[..., 0])


def test_one_set_serves_every_split_and_says_so(tmp_path: Path) -> None:
    name = saved(tmp_path, x=X, y=Y)
    train, test = load_data(name, "train"), load_data(name, "test")
    assert train.fingerprint == test.fingerprint
    assert train.split == test.split == "all"
    assert train.name == name


def test_two_splits(tmp_path: Path) -> None:
    name = saved(tmp_path, x_train=X, y_train=Y, x_test=X[:1], y_test=Y[:1])
    assert len(load_data(name, "train")) == 4 and len(load_data(name)) == 1
    assert load_data(name).split == "test"
    with pytest.raises(DataError):
        load_data(name, "all")


def test_classes_are_counted_in_all_splits(tmp_path: Path) -> None:
    """The training images may have no image of the last class, or the others."""
    x = np.full((4, 1, 3, 3), 0.2, np.float32)
    for train, test in (([0, 1, 0, 1], [0, 1, 2, 3]), ([3, 2, 1, 0], [0, 0, 0, 0])):
        arrays = {"x_train": x, "y_train": train, "x_test": x, "y_test": test}
        given = (as_splits(arrays), as_splits({"train": (x, train), "test": (x, test)}))
        pairs = [load_splits(saved(tmp_path, **arrays)), *((one["train"], one["test"]) for one in given)]
        assert {(a.classes, b.classes, a.classes_known) for a, b in pairs} == {(4, 4, False)}


@pytest.mark.parametrize(("brightest", "dark"), [(0.0, True), (1 / 255, True), (0.125, True), (0.13, False)])
def test_dark_images_are_noted(tmp_path: Path, brightest: float, dark: bool) -> None:
    x = np.zeros((33, 1, 2, 2), np.float32)
    x[31, 0, 1, 1] = x[32] = brightest
    x[32] = 1
    for one in load_splits(saved(tmp_path, x=x, y=np.arange(33) % 2)):
        assert ("dark" in [note.code for note in one.notes]) == dark


@pytest.mark.parametrize(
    ("images", "labels"),
    [("{}_images", "{}_labels"), ("X_{}", "y_{}"), ("x_{}", "Y_{}"), ("{}_data", "{}_y")],
)
def test_splits_under_the_keys_of_others(tmp_path: Path, images: str, labels: str) -> None:
    rows = {"train": 4, "val": 3, "test": 2}
    arrays = {images.format(split): X[:n] for split, n in rows.items()}
    arrays |= {labels.format(split): Y[:n, None] for split, n in rows.items()}
    name = saved(tmp_path, **arrays)
    assert (len(load_data(name)), len(load_data(name, "train"))) == (2, 4)
    assert load_data(name).labels.tolist() == [0, 1]
    for key in (images, labels):
        del arrays[key.format("test")]
    val = load_data(saved(tmp_path, **arrays))
    assert len(val) == 3 and val.split == "test"
    assert "validation-split" in [note.code for note in val.notes]


def test_class_names_and_limit(tmp_path: Path) -> None:
    data = load_data(saved(tmp_path, x=X, y=Y, class_names=["a", "b", "c", "d"]), limit=2)
    assert data.class_names == ("a", "b", "c", "d") and data.ids.tolist() == [0, 1]


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    for arrays, key in (
        ({"xs": X, "y": Y}, "'xs'"),
        ({"x": X}, "'y'"),
        ({"x": X * 1.0, "y": Y}, "255"),
        ({"x": X[0, 0], "y": Y}, "shape"),
        ({"x": X, "y": Y, "class_names": ["a", "b"]}, "0 to 2 but 2"),
    ):
        with pytest.raises(DataError, match=key):
            load_data(saved(tmp_path, **arrays))
    with pytest.raises(DataError):
        load_data(saved(tmp_path, x_train=X, y_train=Y), "test")
    np.save(tmp_path / "single.npy", X)
    for name in ("nowhere.npz", "single.npy"):
        with pytest.raises(DataError, match=name):
            load_data(f"npz:{tmp_path / name}")


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    with pytest.raises(DataError):
        load_data(saved(tmp_path, x=np.array([Bomb()] * 4, dtype=object), y=Y))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError):
        load_data(f"npz:{tmp_path / 'plain.npz'}")
    assert not (tmp_path / "exploded").exists()


def test_every_damage_is_one_sentence(tmp_path: Path) -> None:
    name = saved(tmp_path, x=X, y=Y)
    path = Path(name.removeprefix("npz:"))
    whole = path.read_bytes()
    for cut in range(0, len(whole), 37):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            load_data(name)
    middle = len(whole) // 3
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(DataError):
        load_data(name)
