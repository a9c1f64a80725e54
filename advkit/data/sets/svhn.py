"""Street View House Numbers, cropped digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from advkit.core.threat import Threat
from advkit.data.dataset import Split, dataset
from advkit.data.torchvision_files import TorchvisionFiles

if TYPE_CHECKING:
    from advkit.data.data import Data

_FILES = TorchvisionFiles("svhn", "SVHN", train="train_32x32.mat", test="test_32x32.mat")


@dataset(
    "svhn",
    summary="32x32 colour photographs of house numbers, one digit each",
    source="Netzer et al. 2011",
    shape=(3, 32, 32),
    sizes=(73_257, 26_032),
    threat=Threat("linf", 8 / 255),  # as for CIFAR-10
    files=_FILES,
)
def svhn(split: Split, root: Path) -> Data:
    """The publishers' own split and order, without the "extra" images."""
    import torch

    from advkit.data.data import Data

    reader = _FILES.read(split, root)
    return Data(
        name="svhn",
        split=split,
        images=torch.from_numpy(reader.data).contiguous(),
        labels=torch.from_numpy(reader.labels),
        class_names=tuple(str(digit) for digit in range(10)),
        ids=torch.arange(len(reader.data)),
    )
