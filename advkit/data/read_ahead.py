"""Images that are decoded on a thread before they are asked for, while the model computes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from torch import Tensor

LOG = logging.getLogger(__name__)


class ReadAhead:
    """Rows that were decoded in advance, until they are taken.

    Args:
        decode: images (n, C, H, W) of n rows.
    """

    def __init__(self, decode: Callable[[Sequence[int]], Tensor]) -> None:
        self._decode = decode
        self._ready: dict[int, Tensor] = {}
        self._reader: _Reader | None = None
        self._lock = threading.Lock()

    def expect(self, rows: Sequence[int]) -> None:
        """Has those decoded that are not yet; what was decoded and is not among them is given up. While an
        earlier call is being served, nothing happens."""
        with self._lock:
            if self._reader is not None and self._reader.is_alive():
                return
            self._collect()
            self._ready = {row: self._ready[row] for row in rows if row in self._ready}
            if new := [row for row in dict.fromkeys(rows) if row not in self._ready]:
                self._reader = _Reader(self._decode, new)
                self._reader.start()

    def take(self, rows: Sequence[int]) -> dict[int, Tensor]:
        """Images (C, H, W) by row, as far as they are decoded or being decoded."""
        with self._lock:
            if self._reader is not None and not self._reader.rows.isdisjoint(rows):
                self._reader.join()
                self._collect()
            return {row: self._ready.pop(row) for row in dict.fromkeys(rows) if row in self._ready}

    def _collect(self) -> None:
        if self._reader is not None:
            self._ready |= self._reader.images
            self._reader = None


class _Reader(threading.Thread):
    """Decodes some rows; what fails is left out, and fails again where it is read."""

    def __init__(self, decode: Callable[[Sequence[int]], Tensor], rows: Sequence[int]) -> None:
        super().__init__(name="read ahead", daemon=True)
        self.rows = frozenset(rows)
        self.images: dict[int, Tensor] = {}
        self._decode, self._order = decode, rows

    def run(self) -> None:
        """Work of the thread."""
        try:
            self.images = dict(zip(self._order, self._decode(self._order), strict=True))
        except Exception as error:
            LOG.debug("%d images could not be read ahead: %s", len(self._order), error)
