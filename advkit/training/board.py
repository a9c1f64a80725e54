"""A run's metrics for TensorBoard."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from advkit.core.errors import ConfigError


def refuse_without_tensorboard() -> None:
    """Raises a `ConfigError` where the module is not installed."""
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs the module tensorboard, which is not installed; run: pip install tensorboard"
        ) from error


class Board:
    """Event files in the folder ``tensorboard`` of a run; a context manager.

    Args:
        folder: of the run; None writes nothing.
        step: at which this process begins: what an earlier one wrote of later steps is not shown.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(folder / "tensorboard", purge_step=step + 1)

    def row(self, step: int, values: Mapping[str, Any]) -> None:
        """The numbers of a row of metrics."""
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(name, value, step)

    def samples(self, step: int, images: Tensor, columns: int) -> None:
        """A grid of images (N, C, H, W) in [0, 1] with 1 or 3 channels."""
        if self._writer is not None:
            from torchvision.utils import make_grid  # takes seconds to import

            self._writer.add_image("samples", make_grid(images, columns).clamp(0, 1), step)

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
