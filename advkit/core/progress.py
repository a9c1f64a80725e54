"""Progress of long work. The command line draws it; a Python caller may ignore it."""

from __future__ import annotations

from types import TracebackType


class Share(float):
    """A fact between 0 and 1 that is shown in per cent."""


class Task:
    """A piece of work of known length, which may turn out longer; a context manager."""

    def advance(self, n: int = 1, **facts: float | str) -> None:
        """``n`` more units are done; ``facts`` are the figures to show beside the bar."""

    def underway(self, n: float) -> None:
        """Beside what is done, other units are so far on that together they are worth ``n``."""

    def extend(self, n: int) -> None:
        """There are ``n`` more units to do than was said."""

    def __enter__(self) -> Task:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The work is over, or has failed."""


class Progress:
    """The silent one, and the protocol: the command line overrides both methods."""

    def task(self, name: str, total: int, *, done: int = 0, unit: str = "step") -> Task:
        """Starts a task of ``total`` units, of which ``done`` were done by an earlier process."""
        return Task()

    def say(self, message: str) -> None:
        """One line that a person should read (what was assumed, what was skipped)."""


SILENT = Progress()
