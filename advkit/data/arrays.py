"""Images and labels that a user brings: checked, and turned into `Data`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advkit.core.errors import DataError
from advkit.core.notes import Note
from advkit.data.data import Data

ROUNDING = 1e-6
"""How far outside [0, 1] a pixel may be: what float32 loses when a normalisation is undone."""


CLASSES = 100_000
"""Largest number of classes."""

MANY, COPIES = 100, 0.01
"""Of so many images, the share of copies from which on they are noted."""


def from_arrays(
    images: Any,
    labels: Any,
    *,
    name: str,
    split: str,
    class_names: Sequence[str] | None = None,
    notes: Sequence[Note] = (),
) -> Data:
    """`Data` of tensors, arrays or lists, on the CPU and without copying where that is possible.

    Args:
        images: (N, C, H, W), (N, H, W, C) with one or three channels, or (N, H, W); levels 0..255 or
            floats in [0, 1] (kept as float32). Values outside [0, 1] by no more than `ROUNDING` are clamped.
        labels: N integers from 0, in any type and shape, such as (N, 1).
        name: what messages and results call the data.
        split: "train", "test", or "all" where nothing is divided.
        class_names: one a class; by default the numbers up to the largest label.
        notes: what was noted of them before.

    Raises:
        DataError: whatever is wrong with either, in one sentence.
    """
    said = list(notes)
    pixels = _images(_tensor(images, "images", name), name, said)
    classes = _labels(_tensor(labels, "labels", name), len(pixels), name)
    copies = len(pixels) - len({hash(image.tobytes()) for image in pixels.numpy()})
    if len(pixels) >= MANY and copies > COPIES * len(pixels):
        how = "intervals take all images for independent, and are too narrow"
        said.append(Note("copies", f"{copies:,} of {len(pixels):,} images are copies of others: {how}"))
    named = class_names is not None
    if len(classes) and int(classes.max()) >= CLASSES:
        raise DataError(
            f"labels of {name!r} go up to {int(classes.max()):,}, and {CLASSES:,} classes are the most; "
            "number the classes from 0"
        )
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
        notes=tuple(said),
    )


def _tensor(values: Any, what: str, name: str) -> Tensor:
    try:
        if isinstance(values, list | tuple) and values and all(isinstance(one, Tensor) for one in values):
            values = torch.stack([one.detach() for one in values])
        if isinstance(values, Tensor):
            if values.layout != torch.strided or values.is_quantized or values.is_nested or values.is_meta:
                raise TypeError("not all of its numbers are in memory as they are")
            return values.detach().cpu()
        array = np.asarray(values)
        if array.dtype == object:
            array = np.asarray(array.tolist())
        # PyTorch shares only memory that is writable, runs forward and has the machine's byte order
        native = array.dtype.newbyteorder("=")
        return torch.from_numpy(np.require(array, native, ["C_CONTIGUOUS", "WRITEABLE"]))
    except (TypeError, ValueError, RuntimeError) as error:  # no numbers, or lists of unequal length
        raise DataError(
            f"{what} of {name!r} are not an array of numbers; give a tensor or a NumPy array"
        ) from error


def _images(images: Tensor, name: str, notes: list[Note]) -> Tensor:
    shape = tuple(images.shape)
    if images.dim() == 3:
        images = images[:, None]
    if images.dim() != 4:
        raise DataError(
            f"images of {name!r} have shape {shape}; give (N, channels, height, width), "
            "(N, height, width, channels) or (N, height, width)"
        )
    if images.numel() == 0:
        raise DataError(f"images of {name!r} have shape {shape}, which is empty; give some")
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
        said = f"images of shape {shape} were taken as (N, height, width, channels)"
        notes.append(Note("channels-last", said))
    elif len(shape) == 4 and shape[1] == shape[2] and shape[3] <= 4:  # square ones with channels last?
        said = f"images of shape {shape} were taken as (N, channels, height, width)"
        notes.append(Note("channels-first", said))
    if not (images.is_floating_point() or images.is_complex() or images.dtype in (torch.uint8, torch.bool)):
        least, most = (int(bound) for bound in images.to(torch.int64).aminmax())
        if least >= 0 and 1 < most <= 255:
            notes.append(Note("integer-levels", f"{_type(images)} from {least} to {most}: 8-bit levels"))
            images = images.to(torch.uint8)
    if images.dtype == torch.uint8:
        if int(images.max()) == 1:
            raise DataError(
                f"images of {name!r} are 8-bit levels but none is above 1, where white is 255; "
                "multiply them by 255, or give floats in [0, 1]"
            )
        return images.contiguous()
    if not images.is_floating_point():
        raise DataError(
            f"images of {name!r} have type {_type(images)}; give uint8 levels 0..255 or floats in [0, 1]"
        )
    images = images.to(torch.float32).contiguous()
    low, high = (float(bound) for bound in images.aminmax())
    if low != low:
        raise DataError(f"images of {name!r} hold NaN; find out where it comes from and remove it")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise DataError(
            f"images of {name!r} range from {low:.9g} to {high:.9g}, outside [0, 1]; {_way(low, high)}"
        )
    if low < 0 or high > 1:
        count = int(((images < 0) | (images > 1)).sum())
        said = f"{count:,} values were outside [0, 1] by at most {max(-low, high - 1):.1g} and were clamped"
        notes.append(Note("clamped", said))
        images = images.clamp(0, 1)
    return images


def _way(low: float, high: float) -> str:
    if low >= -ROUNDING and 2 <= high <= 255 + ROUNDING:
        return "divide them by 255"
    if -1 - ROUNDING <= low < -0.1 and high <= 1 + ROUNDING:
        return "use (x + 1) / 2 if they were stretched to [-1, 1]"
    if low >= -0.1 and high <= 1.1:
        return "clip them if that is what an interpolation or an augmentation left"
    return "undo their normalisation (the model's preprocessing belongs to the model)"


def _labels(labels: Tensor, n: int, name: str) -> Tensor:
    if labels.numel() == n:
        labels = labels.reshape(n)  # (N, 1), as Keras and MedMNIST have them
    if labels.dim() != 1:
        rows = labels.flatten(1) if labels.dim() else labels.view(1, 1)
        one_hot = len(rows) == n and bool(((rows != 0).sum(1) == 1).all())
        way = "y.argmax(1) of these one-hot rows" if one_hot else "several an image have no single true class"
        raise DataError(
            f"labels of {name!r} have shape {tuple(labels.shape)}; give one integer an image ({way})"
        )
    if labels.is_complex() or (labels.is_floating_point() and not bool((labels == labels.round()).all())):
        raise DataError(
            f"labels of {name!r} have type {_type(labels)} and are no whole numbers; give integers from 0"
        )
    return labels.to(torch.int64)


def _type(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
