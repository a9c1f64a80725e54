"""Extra images beside those of the data set: a fixed share of every batch, such as a GAN's samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from advkit.core import rng
from advkit.core.errors import ConfigError, DataError, by_size
from advkit.data.augment import Order
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.training.settings import Fitting

FIRST = 2**40
"""Id of the first extra image: no data set has as many images, so random numbers of the two differ."""


def load_extra(config: Fitting, train: Data, root: Path | None) -> Data | None:
    """The images that ``config.extra_data`` names, as data with the classes of ``train``; None for none.

    Raises:
        ConfigError: unknown name, or a share of the batch that leaves no image of one of the two kinds.
        DataError: missing or damaged, images of another shape, or other classes.
    """
    if config.extra_data is None:
        return None
    extra = fitting(load_data(config.extra_data, "train", root=root), train)
    count(config, len(train))
    return extra


def fitting(extra: Data, train: Data) -> Data:
    """``extra`` as data with the classes of ``train``, and ids of its own.

    Raises:
        DataError: images of another shape, or other classes.
    """
    if extra.shape != train.shape:
        theirs, ours = map(by_size, (extra.shape, train.shape))
        raise DataError(
            f"the extra images {extra.name!r} are {theirs} but those of {train.name!r} are {ours} "
            "(channels x height x width); give extra images of the same shape"
        )
    highest = int(extra.labels.max())
    if highest >= train.classes or (extra.classes_known and extra.classes != train.classes):
        theirs = f"{extra.classes} classes" if extra.classes_known else f"labels up to {highest}"
        raise DataError(
            f"the extra images {extra.name!r} have {theirs} but {train.name!r} has {train.classes} classes; "
            "give extra images of the same classes, numbered in the same way"
        )
    return replace(
        extra, class_names=train.class_names, classes_known=train.classes_known, ids=FIRST + extra.ids % FIRST
    )


def count(config: Fitting, n: int) -> int:
    """Extra images in a batch of training on ``n`` images.

    Raises:
        ConfigError: the share leaves no image of one of the two kinds.
    """
    size = min(config.batch_size, n)
    extra = round(config.extra_fraction * size)
    if not 0 < extra < size:
        raise ConfigError(
            f"an extra fraction of {config.extra_fraction:g} is {extra} of the {size} images in a batch; "
            "give an --extra-fraction or a --batch-size that leaves at least one image of both kinds"
        )
    return extra


class Mixed:
    """Which images of two sets make a batch: the first of them from ``train``, the others from ``extra``.

    Args:
        config: says the batch size, the share of the extra images, and the seed.
        extra: as `fitting` returns it, or None.
    """

    def __init__(self, config: Fitting, train: Data, extra: Data | None) -> None:
        self.train, self.extra = train, extra
        self.size = min(config.batch_size, len(train))
        count_extra = 0 if extra is None else count(config, len(train))
        self._own = Order(len(train), self.size - count_extra, config.seed)
        if extra is not None:
            self._others = Order(len(extra), count_extra, rng.derive(config.seed, "extra"))

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Images as floats in [0, 1], labels and ids of batch number ``step``, on ``device``."""
        x, y, ids = _rows(self.train, self._own.batch(step), device)
        if self.extra is None:
            return x, y, ids
        others = _rows(self.extra, self._others.batch(step), device)
        return torch.cat([x, others[0]]), torch.cat([y, others[1]]), torch.cat([ids, others[2]])


def _rows(data: Data, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    return *data.batch(index, device), data.ids[index].to(device, non_blocking=True)
