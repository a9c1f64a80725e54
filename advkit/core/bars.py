"""Progress display: bars on a terminal or in a notebook, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType

from rich import progress as bars
from rich.console import Console, RenderableType
from rich.text import Text

from advkit.core import distributed
from advkit.core.progress import SILENT, Progress, Share, Task

SECONDS_BETWEEN_LINES = 30.0
"""Seconds between lines of progress without a terminal."""


def figure(value: float | str) -> str:
    """A fact as text: three digits that matter, thousands with separators; shares in per cent."""
    if isinstance(value, str):
        return value
    if isinstance(value, Share):
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``2:05`` or ``1:02:05``."""
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _facts(facts: dict[str, float | str]) -> str:
    return "   ".join(f"{name.replace('_', ' ')} {figure(value)}" for name, value in facts.items())


class _Bars(bars.Progress):
    """Bars, and below them the facts of each task, on lines of their own so that 80 columns are enough."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["facts"]:
                yield Text(f"  {task.fields['facts']}", style="dim", no_wrap=True, overflow="ellipsis")


class _Work(Task):
    """One task of a `Drawn`."""

    def __init__(self, screen: Drawn, name: str, total: int, done: int, unit: str) -> None:
        self.name, self.total = name, total
        self.units = f"{unit}es" if unit.endswith("s") else f"{unit}s"
        self.begun_with = self.done = done
        self.half_done = 0.0
        self.facts: dict[str, float | str] = {}
        self.began = self.spoke = screen.clock()
        self.outermost = not screen.open
        self.screen = screen
        self.bar: bars.TaskID | None = None

    def advance(self, n: int = 1, **facts: float | str) -> None:
        self.done += n
        self.half_done = max(0.0, self.half_done - n)
        self.facts.update(facts)
        self.show()

    def underway(self, n: float) -> None:
        self.half_done = n
        self.show()

    def show(self) -> None:
        """On the bar, or as a line if it is time for one."""
        if self.bar is not None:
            self.screen.bars.update(
                self.bar,
                completed=self.done + self.half_done,
                count=self.count(),
                facts=_facts(self.facts),
            )
        elif self.screen.clock() - self.spoke >= SECONDS_BETWEEN_LINES:
            self.spoke = self.screen.clock()
            left = f"{duration(self.left())} left"
            self.screen.line(f"{self.name} {self.count()}", left, _facts(self.facts))

    def extend(self, n: int) -> None:
        self.total += n
        if self.bar is not None:
            self.screen.bars.update(self.bar, total=self.total, count=self.count())

    def count(self) -> str:
        """``1,200/12,001 steps``, and how far all of it is where a part of it is under way."""
        done = f"{self.done:,}/{self.total:,} {self.units}"
        if not self.half_done or not self.total:
            return done
        return f"{done}, {100 * min(1.0, (self.done + self.half_done) / self.total):.0f} %"

    def left(self) -> float:
        """Seconds that the rest takes at the speed so far."""
        worth = self.done + self.half_done
        made = max(worth - self.begun_with, 1e-3)
        return (self.screen.clock() - self.began) / made * max(0, self.total - worth)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.screen.close(self)
        if self.outermost and kind is None:
            took = duration(self.screen.clock() - self.began)
            self.screen.line(f"{self.name}: {self.done:,} {self.units}", took, _facts(self.facts))


class Drawn(Progress):
    """Progress as bars with the time left on a terminal, and as a line now and then elsewhere.

    An outermost task leaves one line behind; a task inside another leaves nothing.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.open: list[_Work] = []
        self.bars = _Bars(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=None),
            bars.TextColumn("{task.fields[count]}", justify="right"),
            bars.TimeRemainingColumn(compact=True),
            bars.TextColumn("left"),
            console=console,
            transient=True,
            expand=True,
            refresh_per_second=5,
        )

    def task(self, name: str, total: int, *, done: int = 0, unit: str = "step") -> Task:
        """A bar, when the console is a terminal."""
        work = _Work(self, name, total, done, unit)
        self.open.append(work)
        if self.console.is_interactive:
            self.bars.start()
            work.bar = self.bars.add_task(name, total=total, completed=done, facts="", count=work.count())
        return work

    def say(self, message: str) -> None:
        """The message above the bars."""
        self.line(message)

    def line(self, *parts: str) -> None:
        """One line for a person to read, of the parts that say something."""
        text = Text("   ".join(part for part in parts if part))
        self.console.print(text, soft_wrap=not self.console.is_terminal)

    def __enter__(self) -> Drawn:
        return self

    def __exit__(self, *error: object) -> None:
        for work in list(self.open):
            self.close(work)

    def close(self, work: _Work) -> None:
        """Takes a task's bar away, and the whole display with the last one."""
        self.open.remove(work)
        if work.bar is not None:
            self.bars.remove_task(work.bar)
            if not self.open:
                self.bars.stop()


def shown(progress: Progress | bool | None) -> Progress:
    """The progress that a Python caller asks for; the first process of a group shows it.

    Args:
        progress: the caller's own; True: bars or lines; False: none; None: bars in a terminal or a notebook.
    """
    if progress is False or distributed.rank() > 0:
        return SILENT
    if not (progress is None or isinstance(progress, bool)):
        return progress
    console = Console(stderr=True)
    return Drawn(console) if progress or console.is_interactive else SILENT
