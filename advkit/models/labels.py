"""Classes as a conditional network is given them."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.core.errors import ConfigError, DataError


def need_classes(classes: int | None) -> int:
    """``classes``, of a network that cannot do without.

    Raises:
        ConfigError: it is missing or less than 1.
    """
    if classes is None or classes < 1:
        raise ConfigError(
            f"a conditional network needs the number of classes, 1 or more (got {classes}); take data with "
            "labels, or say classes=N"
        )
    return classes


def need_labels(labels: Tensor | None, n: int, classes: int) -> Tensor:
    """``labels``, one for each of ``n`` rows.

    Their values are looked at where that costs nothing: on the CPU. A GPU would have to be waited for; there
    the embedding itself stops on a class that it has not.

    Raises:
        DataError: there are none, or not (n,) int64, or one is outside 0..classes-1.
    """
    if labels is None:
        raise DataError(f"a conditional network was called without labels; give each of the {n} rows a class")
    if labels.shape != (n,) or labels.dtype != torch.int64:
        raise DataError(
            f"labels are {tuple(labels.shape)} {labels.dtype} where ({n},) torch.int64 is wanted; "
            "give one class for each row"
        )
    if labels.device.type == "cpu" and n and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"labels reach from {int(labels.min())} to {int(labels.max())}, "
            f"but the network knows the classes 0 to {classes - 1}; give those"
        )
    return labels
