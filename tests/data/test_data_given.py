"""Data sets of other libraries, and tables of files."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torchvision import datasets, transforms

import advkit
from advkit.core.errors import DataError
from advkit.data.data import Data
from advkit.data.load import as_data, load_data

MakeFolder = Callable[..., Path]
X = torch.arange(10 * 3 * 4 * 5, dtype=torch.uint8).view(10, 3, 4, 5)
Y = torch.tensor([3, 0, 1, 2, 0, 1, 2, 3, 0, 1])
WHOLE = TensorDataset(X, Y)


class Items(Dataset):
    """Items made on access."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int) -> Any:
        return self.make(row)


class Stream(IterableDataset):
    """No rows, no length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X, Y.tolist(), strict=True))


class Rows:
    """What a Hugging Face data set looks like."""

    column_names = ("image", "label")

    def __init__(self) -> None:
        self.features = {"image": None, "label": type("ClassLabel", (), {"names": list("abcd")})()}

    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"image": picture(row), "label": int(Y[row])}


def picture(row: int) -> Image.Image:
    return Image.fromarray(X[row].permute(1, 2, 0).numpy())


def codes(data: Data) -> list[str]:
    return [note.code for note in data.notes]


@pytest.mark.parametrize(
    ("given", "noted"),
    [
        (WHOLE, []),
        (Items(lambda row: (picture(row), int(Y[row]))), []),
        (Items(lambda row: (X[row], Y[row], "an extra", row)), []),
        (Items(lambda row: {"pixel_values": X[row].numpy(), "labels": Y[row : row + 1]}), []),
        (Stream(), []),
        (Rows(), []),
        (DataLoader(WHOLE, batch_size=4), []),
        (DataLoader(WHOLE, batch_size=4, shuffle=True, drop_last=True), ["order-of-dataset"]),
        (DataLoader(Items(lambda row: {"image": X[row], "label": Y[row]}), batch_size=3), []),
        (DataLoader(Stream(), batch_size=3), []),
        (DataLoader(WHOLE, batch_size=None), []),
        (DataLoader(WHOLE, batch_size=None, shuffle=True), ["order-of-dataset"]),
        (DataLoader(WHOLE, sampler=SubsetRandomSampler(range(10))), ["order-of-dataset"]),
        (DataLoader(WHOLE, batch_sampler=BatchSampler(SequentialSampler(WHOLE), 4, drop_last=False)), []),
        (Subset(WHOLE, range(10)), []),
        ({"x": X, "y": Y}, []),
        ({"pixel_values": X, "labels": Y[:, None]}, []),
        ({"train": WHOLE, "test": Rows()}, []),
        ([X, Y], []),
        ([(X[row], int(Y[row])) for row in range(10)], []),
        ([{"image": picture(row), "label": Y[row]} for row in range(10)], []),
    ],
)
def test_all_mean_the_same(given: Any, noted: list[str]) -> None:
    data = as_data(given)
    assert data.fingerprint == as_data(X, Y).fingerprint and codes(data) == noted


def test_floats_and_grey_images() -> None:
    floats = as_data(Items(lambda row: (X[row].double() / 255, int(Y[row]))))
    assert floats.images.dtype == torch.float32 and torch.allclose(floats.images[:], X / 255)
    grey = as_data(Items(lambda row: (picture(row).convert("L"), int(Y[row]))))
    assert grey.shape == (1, 4, 5) and grey.images.dtype == torch.uint8
    mixed = as_data(Items(lambda row: (picture(row).convert("L") if row else picture(row), int(Y[row]))))
    assert mixed.shape == (3, 4, 5) and torch.equal(mixed.images[0], X[0])


def test_a_part_is_only_that_part() -> None:
    chosen = Subset(WHOLE, [7, 2])
    assert as_data(chosen).labels.tolist() == [3, 1]
    drawn = as_data(DataLoader(WHOLE, batch_size=2, sampler=SubsetRandomSampler([4, 6, 5])))
    assert drawn.labels.tolist() == Y[[4, 6, 5]].tolist()


@pytest.mark.parametrize("batches", [False, True])
def test_rows_that_are_drawn_anew_each_time_are_noted(batches: bool) -> None:
    order = WeightedRandomSampler(torch.ones(10), 10, generator=torch.Generator().manual_seed(0))
    how: Any = {"batch_sampler": BatchSampler(order, 4, drop_last=False)} if batches else {"sampler": order}
    assert codes(as_data(DataLoader(WHOLE, **how))) == ["random-rows"]


def test_class_names_of_a_data_set_and_its_subset(make_folder: MakeFolder) -> None:
    folder = datasets.ImageFolder(str(make_folder({"cat": 2, "dog": 2})), transforms.ToTensor())
    for given in (folder, Subset(folder, [0, 3]), DataLoader(folder)):
        assert as_data(given).class_names == ("cat", "dog") and as_data(given).classes_known
    assert as_data(Rows()).class_names == ("a", "b", "c", "d")


def test_random_transforms_are_noted() -> None:
    reads = iter(range(1000))
    data = as_data(Items(lambda row: (torch.full((1, 2, 2), next(reads) / 1000), int(Y[row]))))
    assert codes(data) == ["random-images"]


@pytest.mark.parametrize(
    "given",
    [
        Items(lambda row: X[row]),
        Items(lambda row: {"a": X[row]}),
        Items(lambda row: (X[row, :, : row + 1], 0)),
        Items(lambda row: (X[row], "cat")),
        Items(lambda row: 1 / 0),
        {"images": X},
        Subset(WHOLE, []),
        X,
        3,
        None,
    ],
)
def test_faults_are_one_sentence(given: Any) -> None:
    with pytest.raises(DataError):
        as_data(given)


@pytest.mark.filterwarnings("ignore")
def test_hugging_face(tmp_path: Path) -> None:
    library, arrow = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
    features = library.Features({"img": library.Image(), "label": library.ClassLabel(names=list("abcd"))})
    files = [{"bytes": encoded(row), "path": None} for row in range(10)]
    table = arrow.Table.from_pydict({"img": files, "label": Y.tolist()}, schema=features.arrow_schema)
    given = library.Dataset(table, fingerprint="0")
    for form in (given, given.with_format("torch"), given.to_iterable_dataset()):
        data = as_data(form)
        assert data.fingerprint == as_data(X, Y).fingerprint and data.class_names == ("a", "b", "c", "d")
    assert as_data(library.DatasetDict(validation=given, train=given)).split == "test"
    for file in ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "validation-00000.parquet"):
        given.to_parquet(tmp_path / file)
    name = f"parquet:{tmp_path}"
    assert (len(load_data(name)), len(load_data(name, "train"))) == (10, 20)
    whole = load_data(f"parquet:{tmp_path / 'validation-00000.parquet'}")
    assert whole.fingerprint == data.fingerprint and whole.class_names == ("a", "b", "c", "d")
    (tmp_path / "train-00000-of-00002.parquet").write_bytes(b"no")
    with pytest.raises(DataError):
        load_data(name, "train")


def test_parquet_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for _ in range(2):  # without a file, then without the library
        with pytest.raises(DataError):
            load_data(f"parquet:{tmp_path}")
        (tmp_path / "a.parquet").touch()


def encoded(row: int) -> bytes:
    file = io.BytesIO()
    picture(row).save(file, "PNG")
    return file.getvalue()


def test_every_function_takes_them(tmp_path: Path) -> None:
    few = TensorDataset(X[:, :1] / 255, Y)
    quick = {"arch": "mlp", "epochs": 1, "checks": 1, "progress": False}
    run = advkit.train(data=DataLoader(few, batch_size=2), out=tmp_path / "run", **quick)
    for data in (few, DataLoader(few), {"x": few.tensors[0], "y": Y}):
        assert advkit.evaluate(run.model, data, advkit.Threat("linf", 0.1), "fgsm").n == 10


@pytest.fixture
def pictures(make_folder: MakeFolder) -> Path:
    return make_folder({"cat": 3, "dog": 2})


@pytest.mark.parametrize("divider", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["", "path{0}label\n", "id{0}Class{0}FileName\n"])
def test_a_manifest(pictures: Path, header: str, divider: str) -> None:
    files = [("cat/002.png", "b"), ("dog/000.png", "a"), (str(pictures / "cat" / "000.png"), "b")]
    cells = [["7", *row[::-1]] if "id" in header else row for row in files]
    lines = "\n".join(divider.join(row) for row in cells)
    (pictures / "m.csv").write_text(header.format(divider) + lines + "\n\n", "utf-8-sig")
    data = load_data(f"csv:{pictures / 'm.csv'}")
    assert data.images[:, 0, 0, 0].tolist() == [2, 20, 0] and data.labels.tolist() == [1, 0, 1]
    assert data.class_names == ("a", "b") and data.split == "all"
    streamed = load_data(f"csv:{pictures / 'm.csv'}", memory=0)
    assert streamed.fingerprint == data.fingerprint


def test_numbers_and_splits_in_a_manifest(pictures: Path) -> None:
    table = "file,label,split\ncat/000.png,4,train\ncat/001.png,0,Valid\ndog/000.png,2,Valid\n"
    (pictures / "m.csv").write_text(table)
    name = f"csv:{pictures / 'm.csv'}"
    assert load_data(name).labels.tolist() == [0, 2] and load_data(name, "train").labels.tolist() == [4]
    assert load_data(name).classes == 5 and not load_data(name).classes_known
    assert load_data(name, crop=4).shape == (3, 4, 4)
    (pictures / "m.csv").write_text("cat\\000.png,1.0\ndog\\001.png,0.0\n")
    assert load_data(name).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "table",
    [
        *("", "path,label\n", "path\n", "a,b\nnowhere.png,1\n"),
        *("path,size\ncat/000.png,1\n", "path,label\ncat/000.png\n"),
    ],
)
def test_faults_of_a_manifest(pictures: Path, table: str) -> None:
    (pictures / "m.csv").write_text(table)
    with pytest.raises(DataError):
        load_data(f"csv:{pictures / 'm.csv'}")
    (pictures / "m.csv").write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    for name in ("m.csv", "none.csv"):
        with pytest.raises(DataError):
            load_data(f"csv:{pictures / name}")
