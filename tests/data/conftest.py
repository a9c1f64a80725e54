from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advkit.core.progress import Progress

MakeFolder = Callable[..., Path]


class Heard(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def real_data() -> Path:
    """The folder with the real data sets."""
    root = os.environ.get("ADVKIT_DATA")
    if not root:
        pytest.skip("set ADVKIT_DATA to a folder with MNIST, Fashion-MNIST and cifar10-test.npz")
    return Path(root)


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Writes a folder of PNG images: one dictionary entry is one class with its number of images."""

    def make(
        classes: dict[str, int], under: str = "pictures", size: tuple[int, int] = (6, 5), channels: int = 3
    ) -> Path:
        folder = tmp_path / under
        for number, (label, count) in enumerate(classes.items()):
            (folder / label).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                shape = (size[1], size[0], 3) if channels == 3 else (size[1], size[0])
                levels = np.full(shape, 20 * number + index, dtype=np.uint8)
                Image.fromarray(levels).save(folder / label / f"{index:03d}.png")
        return folder

    return make


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    """Four training and two test images in MNIST's own format: image i has level i, label 9 - i."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 4), ("t10k", 2)):
        images = b"".join(bytes([index]) * 784 for index in range(count))
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images)
        labels = bytes(9 - index for index in range(count))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels)
    return tmp_path
