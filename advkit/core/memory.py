"""Memory of the process, kept for the next pass."""

from __future__ import annotations

import ctypes
import sys

from advkit.core.process import Shared

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's options, from its malloc.h."""


def kept() -> Shared[None]:
    """Inside, freed memory stays with the process.

    By default glibc gives the memory of large tensors back to the system at once, which fills it with zeros
    page by page when the next pass asks for it: on a CPU that takes as long as a small network's arithmetic.
    Afterwards what is free is given back. Nothing happens where the C library is another.

    This is a setting of the whole process, so the command line makes it, and no function of the library::

        with advkit.core.memory.kept():
            advkit.evaluate(model, data)
    """
    return _KEPT


def _libc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def _keep() -> None:
    if (libc := _libc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, 1 << 30)


def _give_back(_: None) -> None:
    if (libc := _libc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # where glibc's own adjustment ends
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


_KEPT = Shared(_keep, _give_back)


def exhausted(error: BaseException) -> bool:
    """Whether ``error`` says that the memory of the device or of the machine is used up."""
    torch = sys.modules.get("torch")
    on_device = torch is not None and isinstance(error, torch.cuda.OutOfMemoryError)
    return on_device or isinstance(error, MemoryError) or "CPUAllocator" in str(error)
