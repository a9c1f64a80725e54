"""What tests of several parts use."""

from __future__ import annotations

import os
from typing import Any

import pytest

from advkit.progress import Progress, Task

# Tests run beside each other. PyTorch reads this when it is imported, which nothing above does.
os.environ.setdefault("OMP_NUM_THREADS", "1")


class Stopping(Progress, Task):
    """Ends the process, as it were, when told of progress for the second time."""

    def __init__(self) -> None:
        self.seen = 0

    def task(self, *args: Any, **kwargs: Any) -> Task:
        return self

    def advance(self, n: int = 1, **facts: float | str) -> None:
        self.seen += 1
        if self.seen == 2:
            raise KeyboardInterrupt


@pytest.fixture
def stopping() -> Progress:
    return Stopping()
