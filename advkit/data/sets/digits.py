"""Handwritten digits that come with scikit-learn: nothing to download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from advkit.core.threat import Threat
from advkit.data.dataset import Split, dataset

if TYPE_CHECKING:
    from advkit.data.data import Data


@dataset(
    "digits",
    summary="8x8 grey handwritten digits, bundled with scikit-learn (default)",
    source="Alpaydin and Kaynak 1998, test part of UCI optical digits",
    shape=(1, 8, 8),
    sizes=(1438, 359),
    threat=Threat("linf", 0.15),
)
def digits(split: Split, root: Path) -> Data:
    """1,797 images of 17 grey levels v = 0..16, held as round(255 v / 16) in uint8 (off by 0.002 at most).

    Split: every fifth image (index % 5 == 4) is a test image, the others are for training.

    Why linf 0.15: it is 2.4 of the 16 steps of grey. The two images of different classes that are
    nearest in linf are 0.435 (7 steps) apart, so even half of that, 0.218, would leave every image
    nearest to its own class; 0.15 is well below it, and the digits stay easy to read.
    """
    import torch
    from sklearn.datasets import load_digits

    from advkit.data.data import Data

    bunch = load_digits()
    levels = torch.from_numpy(bunch.images)[:, None]
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    rows = (torch.arange(len(labels)) % 5 == 4) == (split == "test")
    images = (levels[rows] * 255 / 16).round().to(torch.uint8)
    return Data(
        name="digits",
        split=split,
        images=images,
        labels=labels[rows],
        class_names=tuple(str(digit) for digit in range(10)),
        ids=torch.arange(len(images)),
    )
