from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets, transforms

from advkit.core.errors import ConfigError, DataError
from advkit.data import image_files
from advkit.data.data import Data
from advkit.data.image_files import ImageFiles
from advkit.data.load import load_data
from advkit.data.subjects import _unseen
from advkit.models.card import DataFacts, ModelCard

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
    before = load_data(f"folder:{folder}", "test").images[:, 0, 0, 0].tolist()
    Image.new("RGB", (6, 5), (99, 99, 99)).save(folder / "cat" / "0000-new.png")
    after = load_data(f"folder:{folder}", "test").images[:, 0, 0, 0].tolist()
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


def test_streamed_is_the_same_as_held(make_folder: MakeFolder) -> None:
    name = f"folder:{make_folder(TWENTY)}"
    held, streamed = load_data(name, "train"), load_data(name, "train", memory=100)
    assert isinstance(held.images, torch.Tensor) and isinstance(streamed.images, ImageFiles)
    assert (streamed.shape, len(streamed), streamed.classes) == (held.shape, len(held), held.classes)
    assert streamed.fingerprint == held.fingerprint
    index = torch.tensor([7, 0, 7, 20])
    for one, other in zip(streamed.batch(index), held.batch(index), strict=True):
        assert torch.equal(one, other)
    part, expected = (data.take(index).limit(3, first=True) for data in (streamed, held))
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

    def counted(path: Path, *how: Any) -> torch.Tensor:
        decoded.append(path)
        return pixels(path, *how)

    monkeypatch.setattr(image_files, "_pixels", counted)
    data = load_data(f"folder:{make_folder(TWENTY)}", "train", memory=0).limit(9)
    assert decoded == []
    data.batch(torch.tensor([8, 2]))
    assert len(decoded) == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_threads(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(image_files, "cores", lambda: workers)
    data = load_data(f"folder:{make_folder({'a': 10})}", "train")
    levels = data.images[:, 0, 0, 0].tolist()
    assert levels == sorted(levels) and len(levels) == len(data)


def test_faults_name_the_file(make_folder: MakeFolder) -> None:
    folder = make_folder(TWENTY)
    file = folder / "cat" / "005.png"
    deep, large = Image.fromarray(np.zeros((5, 6), dtype=np.float32)), Image.new("RGB", (7, 5))
    for write, said in ((lambda: file.write_bytes(b"?"), "read"), (lambda: large.save(file), "7x5"),
                        (lambda: deep.save(file, "TIFF"), "8 bits")):  # fmt: skip
        write()
        with pytest.raises(DataError, match=rf"005\.png.* {said}") as caught:
            load_data(f"folder:{folder}", "train")
        assert said != "7x5" or "6x5" in str(caught.value)


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
            load_data(f"folder:{folder}", "test")


def test_an_undivided_folder_is_one_set(make_folder: MakeFolder) -> None:
    folder = make_folder(TWENTY)
    whole = load_data(f"folder:{folder}")
    assert (len(whole), whole.split, codes(whole)) == (40, "all", ["undivided"])
    assert whole.fingerprint == load_data(f"folder:{folder}", "all").fingerprint
    assert codes(load_data(f"folder:{folder}", "test")) == ["hash-split"]


@pytest.mark.parametrize(
    ("splits", "test", "train", "noted"),
    [
        (("train", "test"), "test", "train", []),
        (("Train", "TEST"), "TEST", "Train", []),
        (("training", "validation"), "validation", "training", ["validation-split"]),
        (("train", "val"), "val", "train", ["validation-split"]),
        (("train", "val", "test"), "test", "train", ["not-read"]),
        (("train", "test", "annotations"), "test", "train", ["not-read"]),
        (("test",), "test", None, []),
        (("val",), "val", None, ["validation-split"]),
        (("train",), None, "train", []),
    ],
)
def test_split_folders(
    make_folder: MakeFolder, splits: tuple[str, ...], test: str | None, train: str | None, noted: list[str]
) -> None:
    for number, split in enumerate(splits, 1):
        make_folder({"cat": number, "dog": number}, f"pictures/{split}")
    name = f"folder:{make_folder({}, 'pictures')}"
    for part, folder in (("test", test), ("train", train)):
        if folder is None:
            with pytest.raises(DataError):
                load_data(name, part)
        else:
            data = load_data(name, part)
            assert (len(data), data.split) == (2 * (splits.index(folder) + 1), part)
            assert data.class_names == ("cat", "dog")
            if part == "test" or test is None:
                assert load_data(name).fingerprint == data.fingerprint and codes(data) == noted
    with pytest.raises(DataError):
        load_data(name, "all")


def test_images_of_unread_folders_are_counted(make_folder: MakeFolder) -> None:
    folder = make_folder({"train/cat": 1, "test/cat": 1, "val/cat": 3, "val/dog": 4})
    (note,) = load_data(f"folder:{folder}").notes
    assert note.code == "not-read" and "7" in note.text


def test_two_folders_of_one_split(make_folder: MakeFolder) -> None:
    for split in ("train", "test", "Test"):
        make_folder({"cat": 1}, f"pictures/{split}")
    with pytest.raises(DataError):
        load_data(f"folder:{make_folder({}, 'pictures')}")


@pytest.mark.parametrize("beside", [{}, {"labels": 1}])
def test_splits_one_folder_below_are_named(make_folder: MakeFolder, beside: dict[str, int]) -> None:
    folder = make_folder({"inner/train/cat": 1, "inner/val/cat": 1, **beside})
    with pytest.raises(DataError, match=f"folder:{folder}/inner"):
        load_data(f"folder:{folder}")
    assert len(load_data(f"folder:{folder}/inner")) == 1


def test_system_files_beside_splits_are_counted(make_folder: MakeFolder) -> None:
    folder = make_folder({"train/cat": 1, "test/cat": 1, "__MACOSX": 2})
    (folder / "test" / ".DS_Store").touch()
    said = {note.code: note.text for note in load_data(f"folder:{folder}").notes}
    assert list(said) == ["system-files"] and "3" in said["system-files"]


def test_classes_that_are_called_like_splits(make_folder: MakeFolder) -> None:
    folder = make_folder({"train": 2, "test": 1})
    assert load_data(f"folder:{folder}").class_names == ("test", "train")
    folder = make_folder({"train/steam": 2, "car/old": 1}, "vehicles")
    assert load_data(f"folder:{folder}").class_names == ("car", "train")


def test_nested_classes_are_read_as_torchvision_reads_them(make_folder: MakeFolder) -> None:
    folder = make_folder({"cat": 2, "cat/b/deep": 3, "cat/a": 1, "dog/x": 2, "dog/y": 1})
    expected = datasets.ImageFolder(str(folder))
    data = load_data(f"folder:{folder}")
    assert data.labels.tolist() == expected.targets and list(data.class_names) == expected.classes
    for image, (other, _) in zip(data.images[:], expected, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(other))
    assert "one-class" not in codes(data)
    wrapped = load_data(f"folder:{make_folder({'all/cat': 1, 'all/dog': 1}, 'wrapper')}")
    assert wrapped.classes == 1 and "one-class" in codes(wrapped)


def test_a_link_to_a_folder_above_ends(make_folder: MakeFolder) -> None:
    folder = make_folder(TWENTY)
    (folder / "cat" / "again").symlink_to(folder / "cat")
    assert len(load_data(f"folder:{folder}")) == 40


def test_whatever_is_left_out_is_counted(make_folder: MakeFolder) -> None:
    folder = make_folder(TWENTY)
    before = load_data(f"folder:{folder}")
    for system in (
        ".DS_Store",
        "cat/Thumbs.db",
        "__MACOSX/cat/._000.png",
        "cat/.hidden.png",
        "dog/__MACOSX/._1.png",
    ):
        (folder / system).parent.mkdir(parents=True, exist_ok=True)
        (folder / system).touch()
    for other in ("readme.md", "cat/notes.txt", "dog/photo.heic"):
        (folder / other).touch()
    Image.new("RGB", (3, 3)).save(folder / "loose.png")
    after = load_data(f"folder:{folder}")
    assert after.fingerprint == before.fingerprint and after.class_names == before.class_names
    said = {note.code: note.text for note in after.notes}
    assert set(said) == {"undivided", "loose-images", "other-files", "system-files"}
    assert "5" in said["system-files"] and re.findall(r"-?\d+", said["loose-images"]) == ["1"]
    assert all(f"1 {ending}" in said["other-files"] for ending in (".heic", ".md", ".txt"))


@pytest.mark.parametrize("mode", ["grey", "colour"])
def test_sixteen_bits_are_scaled_by_their_range(tmp_path: Path, mode: str) -> None:
    values = np.array([[0, 257, 32896], [65535, 65534, 130]], dtype=np.uint16)
    (tmp_path / "set" / "a").mkdir(parents=True)
    file = tmp_path / "set" / "a" / "1.png"
    if mode == "grey":
        Image.fromarray(values).save(file)
    else:  # which PIL cannot write
        file.write_bytes(png16(np.stack([values] * 3, -1)))
    data = load_data(f"folder:{tmp_path / 'set'}")
    assert data.images.dtype == torch.uint8 and data.shape == (1 if mode == "grey" else 3, 2, 3)
    expected = torch.tensor([[0, 1, 128], [255, 255, 1 if mode == "grey" else 0]])
    assert bool((data.images[0] == expected).all())
    assert "sixteen-bit" in codes(data)


def test_what_is_left_out_of_image_files_is_noted(tmp_path: Path) -> None:
    """A turn, transparency, and all frames but the first."""
    (tmp_path / "a").mkdir()
    image, exif = Image.new("RGB", (6, 4)), Image.Exif()
    for name, orientation in (("upright", 1), ("turned", 6)):
        exif[0x0112] = orientation
        image.save(tmp_path / "a" / f"{name}.jpg", exif=exif)
    image.convert("RGBA").save(tmp_path / "a" / "clear.png")
    white = Image.new("RGB", (6, 4), "white")
    for name in ("frames.gif", "frames.webp", "pages.tif"):
        image.save(tmp_path / "a" / name, save_all=True, append_images=[white])
    data = load_data(f"folder:{tmp_path}")
    said = {note.code: note.text for note in data.notes}
    assert data.images.shape == (6, 3, 4, 6) and int(data.images[:].max()) == 0
    assert said["orientation"][:2] == said["transparency"][:2] == "1 " and said["first-frame"][:2] == "3 "


def png16(values: np.ndarray) -> bytes:
    """A colour PNG of 16 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    height, width, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("resize", "crop", "size"),
    [(8, None, None), ((7, 9), None, (7, 9)), (8, 6, (6, 6)), (None, 5, (5, 5)), ([10], 10, (10, 10))],
)
def test_resize_and_crop_are_those_of_torchvision(
    tmp_path: Path, resize: Any, crop: int | None, size: tuple[int, int] | None
) -> None:
    (tmp_path / "a").mkdir()
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate([(12, 17), (17, 12), (11, 11), (13, 16)]):
        levels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(levels).save(tmp_path / "a" / f"{number}.png")
    name = f"folder:{tmp_path}"
    with pytest.raises(DataError):
        load_data(name)
    if size is None:  # the sides still differ
        with pytest.raises(DataError):
            load_data(name, resize=resize, crop=crop)
        return
    steps = (
        [transforms.Resize(list(resize) if isinstance(resize, tuple | list) else resize)] if resize else []
    )
    steps += [transforms.CenterCrop(crop)] if crop else []
    expected = datasets.ImageFolder(str(tmp_path), transforms.Compose([*steps, transforms.PILToTensor()]))
    data = load_data(name, resize=resize, crop=crop)
    assert data.shape == (3, *size) and "resized" in codes(data)
    for image, (other, _) in zip(data.images[:], expected, strict=True):
        assert torch.equal(image, other)
    streamed = load_data(name, resize=resize, crop=crop, memory=0)
    assert streamed.fingerprint == data.fingerprint


def test_sizes_that_cannot_be(make_folder: MakeFolder) -> None:
    name = f"folder:{make_folder(TWENTY)}"
    with pytest.raises(DataError):
        load_data(name, crop=6)  # of 6 x 5
    for wrong in ({"resize": 0}, {"resize": (1, 2, 3)}, {"crop": -1}):
        with pytest.raises(ConfigError):
            load_data(name, **wrong)
    with pytest.raises(ConfigError):
        load_data("digits", resize=32)


def codes(data: Data) -> list[str]:
    return [note.code for note in data.notes]


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("fingerprint", ["learnt", "other"])
def test_what_a_model_was_trained_on_is_left_out_if_it_is_the_training_split(
    n: int, fingerprint: str
) -> None:
    facts = {"architecture": "mlp", "role": "classifier", "shape": (1, 2, 2)}
    learnt = DataFacts(name="folder:there", split="train", fingerprint="learnt", n=3)

    class Images(list[int]):
        def __init__(self, count: int, split: str) -> None:
            super().__init__(range(count))
            self.name, self.split, self.fingerprint = "folder:here", split, fingerprint

    whole = Images(9, "all")
    found = _unseen(whole, ModelCard(**facts, data=learnt), lambda name, split: Images(n, split or ""))  # type: ignore
    assert found.split == ("test" if (n, fingerprint) == (3, "learnt") else "all")
