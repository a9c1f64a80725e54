"""Memory kept for the next pass does not grow for ever."""

from __future__ import annotations

import ctypes
import multiprocessing
import threading
from typing import Any

import pytest

from advkit.core import memory

LIBC = ctypes.CDLL(None)
LARGE, SMALL, BLOCKS = 4 << 20, 64, 128
glibc = pytest.mark.skipif(not hasattr(LIBC, "malloc_trim"), reason="the C library is not glibc")


class Work(threading.Event):
    """Grows the process between two looks, and is over at the third."""

    looks = 0
    held = 0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout == memory.LOOK_EVERY
        self.looks += 1
        if self.looks == 1:
            fragment()
            self.held = memory.resident()
        return self.looks == 3


def fragment() -> None:
    """Leaves 512 MiB free inside the heap, between small blocks that stay."""
    LIBC.malloc.restype = ctypes.c_void_p
    large = []
    for _ in range(BLOCKS):
        large.append(LIBC.malloc(LARGE))
        ctypes.memset(large[-1], 1, LARGE)
        LIBC.malloc(SMALL)
    for block in large:
        LIBC.free(ctypes.c_void_p(block))


def grow(found: Any) -> None:
    """Sends the resident memory before, while and after the process has grown."""
    LIBC.malloc_trim(0)
    with memory.kept():
        before, work = memory.resident(), Work()
        memory.bound(work)
        found.send((before, work.held, memory.resident()))


@glibc
def test_memory_between_small_objects_is_given_back_when_the_process_has_grown() -> None:
    spawn = multiprocessing.get_context("spawn")  # another heap would have holes of its own
    mine, theirs = spawn.Pipe(False)
    child = spawn.Process(target=grow, args=(theirs,))
    child.start()
    before, held, after = mine.recv()
    child.join()
    assert held - before > 400 << 20
    assert after - before < 150 << 20
