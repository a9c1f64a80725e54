"""MNIST and the data sets of its format: 28x28 grey, ten classes, 60,000 and 10,000 images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from advkit.core.threat import Threat
from advkit.data.dataset import Split, dataset
from advkit.data.torchvision_files import TorchvisionFiles

if TYPE_CHECKING:
    from advkit.data.data import Data


def _register(
    name: str, kind: str, *, classes: tuple[str, ...], summary: str, source: str, threat: Threat
) -> None:
    raw = f"{kind}/raw"
    files = TorchvisionFiles(
        name, kind, train=f"{raw}/train-images-idx3-ubyte", test=f"{raw}/t10k-images-idx3-ubyte"
    )

    @dataset(
        name,
        summary=summary,
        source=source,
        shape=(1, 28, 28),
        sizes=(60_000, 10_000),
        threat=threat,
        files=files,
    )
    def load(split: Split, root: Path) -> Data:
        """The publishers' own split and order."""
        import torch

        from advkit.data.data import Data

        reader = files.read(split, root)
        return Data(
            name=name,
            split=split,
            images=reader.data[:, None],
            labels=reader.targets,
            class_names=classes,
            ids=torch.arange(len(reader.data)),
        )


_register(
    "mnist",
    "MNIST",
    classes=tuple(str(digit) for digit in range(10)),
    summary="28x28 grey handwritten digits",
    source="LeCun, Cortes and Burges 1998",
    threat=Threat("linf", 0.3),  # as in Madry et al. 2018
)
_register(
    "fashion-mnist",
    "FashionMNIST",
    classes=(
        "t-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    summary="28x28 grey pictures of clothing",
    source="Xiao, Rasul and Vollgraf 2017",
    threat=Threat("linf", 0.1),  # as in Wong and Kolter 2018; 0.3 would drown the greys that matter here
)
_register(
    "kmnist",
    "KMNIST",
    classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    summary="28x28 grey handwritten Japanese characters",
    source="Clanuwat et al. 2018",
    threat=Threat("linf", 0.3),  # as for MNIST, whose format and nearly binary pixels it has
)
