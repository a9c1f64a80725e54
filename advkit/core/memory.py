"""Memory of the process, kept for the next pass."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's options, from its malloc.h."""


@contextmanager
def kept() -> Iterator[None]:
    """Inside, freed memory stays with the process.

    By default glibc gives the memory of large tensors back to the system at once, which fills it with zeros
    page by page when the next pass asks for it: on a CPU that takes as long as a small network's arithmetic.
    Afterwards what is free is given back. Nothing happens where the C library is another.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_TRIM_THRESHOLD, 1 << 30)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # where glibc's own adjustment ends
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


def exhausted(error: BaseException) -> bool:
    """Whether ``error`` says that the memory of the device or of the machine is used up."""
    torch = sys.modules.get("torch")
    on_device = torch is not None and isinstance(error, torch.cuda.OutOfMemoryError)
    return on_device or isinstance(error, MemoryError) or "CPUAllocator" in str(error)
