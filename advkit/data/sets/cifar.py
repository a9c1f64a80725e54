"""CIFAR-10 and CIFAR-100: 32x32 colour photographs, 50,000 and 10,000 images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from advkit.core.threat import Threat
from advkit.data.dataset import Split, dataset
from advkit.data.torchvision_files import TorchvisionFiles

if TYPE_CHECKING:
    from advkit.data.data import Data

_SOURCE = "Krizhevsky 2009"
_SHAPE = (3, 32, 32)
_SIZES = (50_000, 10_000)
_THREAT = Threat("linf", 8 / 255)  # as in Madry et al. 2018
_TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_FILES_10 = TorchvisionFiles(
    "cifar10",
    "CIFAR10",
    train="cifar-10-batches-py/data_batch_1",
    test="cifar-10-batches-py/test_batch",
    npz="cifar10-test.npz",
)
_FILES_100 = TorchvisionFiles(
    "cifar100", "CIFAR100", train="cifar-100-python/train", test="cifar-100-python/test"
)


def _read(files: TorchvisionFiles, split: Split, root: Path) -> Data:
    import torch

    from advkit.data.data import Data

    reader = files.read(split, root)
    return Data(
        name=files.name,
        split=split,
        images=torch.from_numpy(reader.data).permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor(reader.targets),
        class_names=tuple(reader.classes),
        ids=torch.arange(len(reader.data)),
    )


@dataset(
    "cifar10",
    summary="32x32 colour photographs of ten kinds of things",
    source=_SOURCE,
    aliases=("cifar-10",),
    shape=_SHAPE,
    sizes=_SIZES,
    threat=_THREAT,
    files=_FILES_10,
)
def cifar10(split: Split, root: Path) -> Data:
    """The publishers' own split and order.

    Where torchvision's folder is absent, the test split is read from ``cifar10-test.npz`` in the data
    folder (``x`` uint8 (N, 3, 32, 32), ``y`` int64), if it is there. Such a file may hold fewer than the
    10,000 images, so look at n: accuracies on it are then not the official ones to the last digit.
    """
    alone = _FILES_10.substitute(split, root)
    if alone is not None:
        from advkit.data.npz import load_npz

        found = load_npz(alone, split)
        return replace(found, name="cifar10", split=split, class_names=_TEN, classes_known=True)
    return _read(_FILES_10, split, root)


@dataset(
    "cifar100",
    summary="32x32 colour photographs of a hundred kinds of things",
    source=_SOURCE,
    aliases=("cifar-100",),
    shape=_SHAPE,
    sizes=_SIZES,
    threat=_THREAT,
    files=_FILES_100,
)
def cifar100(split: Split, root: Path) -> Data:
    """The publishers' own split and order; the hundred fine labels."""
    return _read(_FILES_100, split, root)
