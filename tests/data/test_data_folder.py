from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advkit.core.errors import DataError
from advkit.data import image_files
from advkit.data.image_files import ImageFiles
from advkit.data.load import load_data

MakeFolder = Callable[..., Path]
TWENTY = {"cat": 20, "dog": 20}


def test_hash_split_is_fixed_and_complete(make_folder: MakeFolder) -> None:
    folder = make_folder(TWENTY)
    train, test = (load_data(f"folder:{folder}", split) for split in ("train", "test"))
    assert len(train) + len(test) == 40
    levels = [data.images[:, 0, 0, 0].tolist() for data in (train, test)]
    assert sorted(levels[0] + levels[1]) == [*range(20), *range(20, 40)]
    assert levels[1] == [1, 3, 8, 9, 18, 19, 20, 22, 23, 35]  # by sha256sum; it must never change
    assert test.labels.tolist() == [0] * 6 + [1] * 4 and test.class_names == ("cat", "dog")
    assert test.shape == (3, 5, 6) and test.ids.tolist() == list(range(10))


def test_a_new_image_moves_no_other(make_folder: MakeFolder) -> None:
    folder = make_folder(TWENTY)
    before = load_data(f"folder:{folder}").images[:, 0, 0, 0].tolist()
    Image.new("RGB", (6, 5), (99, 99, 99)).save(folder / "cat" / "0000-new.png")
    after = load_data(f"folder:{folder}").images[:, 0, 0, 0].tolist()
    assert set(before) <= set(after) <= {*before, 99}


def test_train_and_test_folders(make_folder: MakeFolder) -> None:
    make_folder({"cat": 3, "dog": 2}, "pictures/train")
    make_folder({"dog": 1, "emu": 1}, "pictures/test")
    folder = make_folder({}, "pictures")
    train, test = (load_data(f"folder:{folder}", split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("cat", "dog", "emu")
    assert train.labels.tolist() == [0, 0, 0, 1, 1] and test.labels.tolist() == [1, 2]


def test_grey_and_mixed(make_folder: MakeFolder) -> None:
    folder = make_folder({"a": 2}, "pictures/train", channels=1)
    make_folder({"a": 1}, "pictures/test", channels=1)
    name = f"folder:{folder.parent}"
    assert load_data(name, "train").shape == (1, 5, 6)
    Image.new("RGBA", (6, 5), (10, 20, 30, 0)).save(folder / "a" / "colour.PNG")
    mixed = load_data(name, "train")
    assert mixed.shape == (3, 5, 6) and mixed.images[:, :, 0, 0].tolist() == [[0] * 3, [1] * 3, [10, 20, 30]]


def test_hidden_and_foreign_files_are_passed_over(make_folder: MakeFolder) -> None:
    folder = make_folder(TWENTY)
    before = load_data(f"folder:{folder}", "train")
    (folder / ".cache").mkdir()
    (folder / "cat" / "notes.txt").write_text("no image")
    (folder / "cat" / ".hidden.png").write_text("no image")
    after = load_data(f"folder:{folder}", "train")
    assert before.fingerprint == after.fingerprint and before.class_names == after.class_names


def test_streamed_is_the_same_as_held(make_folder: MakeFolder) -> None:
    name = f"folder:{make_folder(TWENTY)}"
    held, streamed = load_data(name, "train"), load_data(name, "train", memory=100)
    assert isinstance(held.images, torch.Tensor) and isinstance(streamed.images, ImageFiles)
    assert (streamed.shape, len(streamed), streamed.classes) == (held.shape, len(held), held.classes)
    assert streamed.fingerprint == held.fingerprint
    index = torch.tensor([7, 0, 7, 20])
    for one, other in zip(streamed.batch(index), held.batch(index), strict=True):
        assert torch.equal(one, other)
    part, expected = (data.take(index).limit(3) for data in (streamed, held))
    assert isinstance(part.images, ImageFiles)
    assert part.ids.tolist() == [7, 0, 7] and part.fingerprint == expected.fingerprint
    assert torch.equal(streamed.balanced(10), held.balanced(10))
    assert torch.equal(streamed.images[3:5], held.images[3:5])
    assert torch.equal(streamed.images[held.labels == 1], held.images[held.labels == 1])


def test_the_budget_counts_what_is_asked_for(make_folder: MakeFolder) -> None:
    name = f"folder:{make_folder(TWENTY)}"
    assert isinstance(load_data(name, "train", limit=2, memory=180).images, torch.Tensor)
    assert isinstance(load_data(name, "train", limit=2, memory=179).images, ImageFiles)


def test_only_what_is_asked_for_is_decoded(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    pixels = image_files._pixels

    def counted(path: Path, shape: tuple[int, int, int]) -> torch.Tensor:
        decoded.append(path)
        return pixels(path, shape)

    monkeypatch.setattr(image_files, "_pixels", counted)
    data = load_data(f"folder:{make_folder(TWENTY)}", "train", memory=0).limit(9)
    assert decoded == []
    data.batch(torch.tensor([8, 2]))
    assert len(decoded) == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_threads(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(image_files.os, "cpu_count", lambda: workers)
    data = load_data(f"folder:{make_folder({'a': 10})}", "train")
    levels = data.images[:, 0, 0, 0].tolist()
    assert levels == sorted(levels) and len(levels) == len(data)


def test_faults_name_the_file(make_folder: MakeFolder) -> None:
    folder = make_folder(TWENTY)
    file = folder / "cat" / "005.png"
    deep, large = Image.fromarray(np.zeros((5, 6), dtype=np.uint16)), Image.new("RGB", (7, 5))
    for write, said in ((lambda: file.write_bytes(b"?"), "read"), (lambda: large.save(file), "7x5"),
                        (lambda: deep.save(file), "8 bits")):  # fmt: skip
        write()
        with pytest.raises(DataError, match=rf"005\.png.* {said}"):
            load_data(f"folder:{folder}", "train")


def test_damage_behind_the_header_is_found_on_reading(make_folder: MakeFolder) -> None:
    folder = make_folder(TWENTY)
    broken = folder / "cat" / "005.png"
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(broken)
    broken.write_bytes(broken.read_bytes()[:60])
    data = load_data(f"folder:{folder}", "train", memory=0)
    with pytest.raises(DataError, match=r"005\.png"):
        data.batch(torch.arange(len(data)))
    Image.new("RGB", (9, 9)).save(broken)
    with pytest.raises(DataError, match=r"005\.png.* size"):
        data.batch(torch.arange(len(data)))


def test_folders_without_a_set(make_folder: MakeFolder, tmp_path: Path) -> None:
    empty = make_folder({"cat": 0})
    Image.new("L", (4, 4)).save(empty / "loose.png")
    for folder in (tmp_path / "nowhere", empty, make_folder({"cat": 1}, "one")):
        with pytest.raises(DataError, match=str(folder)):
            load_data(f"folder:{folder}")
