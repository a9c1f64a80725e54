"""Images and labels that a user brings: checked, and turned into `Data`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advkit.core.errors import DataError
from advkit.data.data import Data


def from_arrays(
    images: Any, labels: Any, *, name: str, split: str, class_names: Sequence[str] | None = None
) -> Data:
    """`Data` of tensors, arrays or nested lists, on the CPU and without copying where that is possible.

    Args:
        images: (N, C, H, W), uint8 levels 0..255 or floats in [0, 1] (kept as float32).
        labels: (N,) integers from 0.
        name: what messages and results call the data.
        split: "train", "test", or "all" where nothing is divided.
        class_names: one a class; by default the numbers up to the largest label.

    Raises:
        DataError: whatever is wrong with either, in one sentence.
    """
    pixels = _images(_tensor(images, "images", name), name)
    classes = _labels(_tensor(labels, "labels", name), name)
    named = class_names is not None
    if class_names is None:
        class_names = [str(label) for label in range(int(classes.max()) + 1 if len(classes) else 1)]
    return Data(
        name=name,
        split=split,
        images=pixels,
        labels=classes,
        class_names=tuple(class_names),
        classes_known=named,
        ids=torch.arange(len(pixels)),
    )


def _tensor(values: Any, what: str, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        array = np.asarray(values)
        # PyTorch shares only memory that is writable, runs forward and has the machine's byte order
        native = array.dtype.newbyteorder("=")
        return torch.from_numpy(np.require(array, native, ["C_CONTIGUOUS", "WRITEABLE"]))
    except (TypeError, ValueError) as error:  # no numbers, or nested lists of unequal length
        raise DataError(
            f"{what} of {name!r} are not an array of numbers; give a tensor or a NumPy array"
        ) from error


def _images(images: Tensor, name: str) -> Tensor:
    if images.dim() != 4:
        raise DataError(
            f"images of {name!r} have shape {tuple(images.shape)}; give four dimensions "
            "(N, channels, height, width)"
        )
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        raise DataError(
            f"images of {name!r} have shape {tuple(images.shape)}, with the channels last; "
            "give (N, channels, height, width): x.permute(0, 3, 1, 2) for a tensor"
        )
    if images.numel() == 0:
        raise DataError(f"images of {name!r} have shape {tuple(images.shape)}, which is empty; give some")
    if images.dtype == torch.uint8:
        if int(images.max()) == 1:
            raise DataError(
                f"images of {name!r} are 8-bit levels but none is above 1, where white is 255; "
                "multiply them by 255, or give floats in [0, 1]"
            )
        return images
    if not images.is_floating_point():
        raise DataError(
            f"images of {name!r} have type {_type(images)}; give uint8 levels 0..255 or floats in [0, 1]"
        )
    low, high = (float(bound) for bound in images.aminmax())
    if low != low:
        raise DataError(f"images of {name!r} hold NaN; find out where it comes from and remove it")
    if low < 0 or high > 1:
        raise DataError(
            f"images of {name!r} range from {low:g} to {high:g}, outside [0, 1]; {_way(low, high)}"
        )
    return images.to(torch.float32)


def _way(low: float, high: float) -> str:
    if low >= 0 and high <= 255:
        return "divide them by 255"
    if low >= -1 and high <= 1:
        return "use (x + 1) / 2 if they were stretched to [-1, 1]"
    return "undo their normalisation (the model's preprocessing belongs to the model)"


def _labels(labels: Tensor, name: str) -> Tensor:
    if labels.dim() != 1:
        raise DataError(
            f"labels of {name!r} have shape {tuple(labels.shape)}; give one integer an image "
            "(y.argmax(1) for one-hot rows)"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels of {name!r} have type {_type(labels)}; give integers from 0")
    return labels.to(torch.int64)


def _type(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
