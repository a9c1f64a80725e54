"""The data sets that torchvision reads and downloads, in the publishers' own splits and order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit.core.threat import Threat
from advkit.data.dataset import Split, TorchvisionFiles, dataset

if TYPE_CHECKING:
    from advkit.data.data import Data

STACKED_SIZES = {"train": 128_000, "test": 26_000}
"""Images of each split of stacked-mnist; as many are judged as are in the test split."""

_MNIST: dict[str, Any] = {"shape": (1, 28, 28), "sizes": (60_000, 10_000)}
_CIFAR: dict[str, Any] = {"shape": (3, 32, 32), "sizes": (50_000, 10_000), "source": "Krizhevsky 2009"}
_TEN_DIGITS = tuple(str(digit) for digit in range(10))
_TEN_THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CLOTHES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


def _mnist_files(name: str, kind: str) -> TorchvisionFiles:
    raw = f"{kind}/raw"
    return TorchvisionFiles(
        name, kind, train=f"{raw}/train-images-idx3-ubyte", test=f"{raw}/t10k-images-idx3-ubyte"
    )


def _read(files: TorchvisionFiles, split: Split, root: Path, classes: tuple[str, ...] | None) -> Data:
    """A split as torchvision holds it, with its own names of the classes if there are no others."""
    import torch

    from advkit.data.data import Data

    reader = files.read(split, root)
    images = torch.as_tensor(reader.data)
    if images.dim() == 3:
        images = images[:, None]
    elif images.shape[3] == 3:
        images = images.permute(0, 3, 1, 2)
    return Data(
        name=files.name,
        split=split,
        images=images.contiguous(),
        labels=torch.as_tensor(reader.labels if files.kind == "SVHN" else reader.targets),
        class_names=classes or tuple(reader.classes),
        ids=torch.arange(len(images)),
    )


def _register(
    files: TorchvisionFiles,
    classes: tuple[str, ...] | None,
    **facts: Any,
) -> None:
    @dataset(files.name, files=files, **facts)
    def load(split: Split, root: Path) -> Data:
        return _read(files, split, root, classes)


_register(
    _mnist_files("mnist", "MNIST"),
    _TEN_DIGITS,
    summary="28x28 grey handwritten digits",
    source="LeCun, Cortes and Burges 1998",
    threat=Threat("linf", 0.3),  # as in Madry et al. 2018
    **_MNIST,
)
_register(
    _mnist_files("fashion-mnist", "FashionMNIST"),
    _CLOTHES,
    summary="28x28 grey pictures of clothing",
    source="Xiao, Rasul and Vollgraf 2017",
    threat=Threat("linf", 0.1),  # as in Wong and Kolter 2018; 0.3 would drown the greys that matter here
    **_MNIST,
)
_register(
    _mnist_files("kmnist", "KMNIST"),
    ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    summary="28x28 grey handwritten Japanese characters",
    source="Clanuwat et al. 2018",
    threat=Threat("linf", 0.3),  # as for MNIST, whose format and nearly binary pixels it has
    **_MNIST,
)
_register(
    TorchvisionFiles("svhn", "SVHN", train="train_32x32.mat", test="test_32x32.mat"),
    _TEN_DIGITS,  # without the "extra" images
    summary="32x32 colour photographs of house numbers, one digit each",
    source="Netzer et al. 2011",
    shape=(3, 32, 32),
    sizes=(73_257, 26_032),
    threat=Threat("linf", 8 / 255),  # as for CIFAR-10
)
_register(
    TorchvisionFiles("cifar100", "CIFAR100", train="cifar-100-python/train", test="cifar-100-python/test"),
    None,  # the hundred fine labels
    summary="32x32 colour photographs of a hundred kinds of things",
    aliases=("cifar-100",),
    threat=Threat("linf", 8 / 255),
    **_CIFAR,
)

_CIFAR10_FILES = TorchvisionFiles(
    "cifar10",
    "CIFAR10",
    train="cifar-10-batches-py/data_batch_1",
    test="cifar-10-batches-py/test_batch",
    npz=True,
)
_STACKED_FILES = _mnist_files("stacked-mnist", "MNIST")


@dataset(
    "cifar10",
    summary="32x32 colour photographs of ten kinds of things",
    aliases=("cifar-10",),
    threat=Threat("linf", 8 / 255),  # as in Madry et al. 2018
    files=_CIFAR10_FILES,
    **_CIFAR,
)
def cifar10(split: Split, root: Path) -> Data:
    """Where torchvision's folder is absent, a split is read from ``cifar10-train.npz`` or
    ``cifar10-test.npz`` in the data folder (``x`` uint8 (N, 3, 32, 32), ``y`` int64), if it is there. Such a
    file may hold fewer images, so look at n: accuracies are then not the official ones to the last digit.
    """
    alone = _CIFAR10_FILES.substitute(split, root)
    if alone is None:
        return _read(_CIFAR10_FILES, split, root, None)
    from advkit.data.npz import load_npz

    found = load_npz(alone, split)
    return replace(found, name="cifar10", split=split, class_names=_TEN_THINGS, classes_known=True)


@dataset(
    "stacked-mnist",
    summary="three MNIST digits as the channels of one 28x28 image: 1,000 modes",
    source="Metz et al. 2017; sizes of Srivastava et al. 2017 (VEEGAN)",
    shape=(3, 28, 28),
    sizes=(STACKED_SIZES["train"], STACKED_SIZES["test"]),
    threat=Threat("linf", 0.3),  # as for MNIST
    files=_STACKED_FILES,
)
def stacked_mnist(split: Split, root: Path) -> Data:
    """Each image holds three images of the same split of MNIST, drawn independently and with replacement.

    Which ones is a function of the split and the image's number alone, so the set is the same everywhere.
    The label is 100 a + 10 b + c of the digits a (red), b (green) and c (blue). The training split takes
    301 MB.
    """
    import torch

    from advkit.core import rng
    from advkit.data.data import Data

    reader = _STACKED_FILES.read(split, root)
    n = STACKED_SIZES[split]
    drawn = rng.integers(rng.keys(0, f"stacked-mnist-{split}", torch.arange(n)), (3,), len(reader.data))
    digits = reader.targets[drawn]
    return Data(
        name="stacked-mnist",
        split=split,
        images=reader.data[drawn],
        labels=digits @ torch.tensor([100, 10, 1]),
        class_names=tuple(f"{mode:03d}" for mode in range(1000)),
        ids=torch.arange(n),
    )
