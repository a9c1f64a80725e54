"""Settings of the whole process that several threads may change at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

Before = TypeVar("Before")


class Shared(AbstractContextManager[None], Generic[Before]):
    """The first thread that enters changes a setting; the last one that leaves puts it back.

    Args:
        change: changes it and returns what was before.
        put_back: is given that.
    """

    def __init__(self, change: Callable[[], Before], put_back: Callable[[Before], None]) -> None:
        self._change, self._put_back = change, put_back
        self._lock, self._before = threading.Lock(), list[Before]()
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = [self._change()]
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._put_back(self._before.pop())
