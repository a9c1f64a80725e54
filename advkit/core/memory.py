"""Memory of the process, kept for the next pass."""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from pathlib import Path

from advkit.core.process import Shared

GROWTH = 256 << 20
"""Bytes by which the process may grow before what is free inside its heap is given back."""
LOOK_EVERY = 1.0
"""Seconds between looks at how large the process is."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's options, from its malloc.h."""


def kept() -> Shared[threading.Event]:
    """Inside, freed memory stays with the process.

    By default glibc gives the memory of large tensors back to the system at once, which fills it with zeros
    page by page when the next pass asks for it: on a CPU that takes as long as a small network's arithmetic.
    Small objects that live on between large ones would make the heap grow for ever: each time the process
    has grown by `GROWTH`, what is free is given back, and so it is afterwards. Nothing happens where the C
    library is another.

    This is a setting of the whole process, so the command line makes it, and no function of the library::

        with advkit.core.memory.kept():
            advkit.evaluate(model, data)
    """
    return _KEPT


def _libc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def _keep() -> threading.Event:
    end = threading.Event()
    if (libc := _libc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, 1 << 30)
        threading.Thread(target=bound, args=(end,), name="memory", daemon=True).start()
    return end


def bound(end: threading.Event) -> None:
    """Gives back what is free whenever the process has grown, until ``end`` is set."""
    libc, before = ctypes.CDLL(None), resident()
    while not end.wait(LOOK_EVERY):
        if resident() > before + GROWTH:
            libc.malloc_trim(0)
            before = resident()


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE


def _give_back(end: threading.Event) -> None:
    end.set()
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
