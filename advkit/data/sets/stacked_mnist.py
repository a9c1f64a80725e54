"""Stacked MNIST: three digits as the channels of one image, a thousand classes to count modes by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from advkit.core.threat import Threat
from advkit.data.dataset import Split, dataset
from advkit.data.torchvision_files import TorchvisionFiles

if TYPE_CHECKING:
    from advkit.data.data import Data

SIZES = {"train": 128_000, "test": 26_000}
"""Images of each split; as many are judged as are in the test split."""

_RAW = "MNIST/raw"
_FILES = TorchvisionFiles(
    "stacked-mnist",
    "MNIST",
    train=f"{_RAW}/train-images-idx3-ubyte",
    test=f"{_RAW}/t10k-images-idx3-ubyte",
)


@dataset(
    "stacked-mnist",
    summary="three MNIST digits as the channels of one 28x28 image: 1,000 modes",
    source="Metz et al. 2017; sizes of Srivastava et al. 2017 (VEEGAN)",
    shape=(3, 28, 28),
    sizes=(SIZES["train"], SIZES["test"]),
    threat=Threat("linf", 0.3),  # as for MNIST
    files=_FILES,
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

    reader = _FILES.read(split, root)
    n = SIZES[split]
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
