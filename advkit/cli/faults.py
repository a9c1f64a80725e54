"""What happens when a command fails: one sentence on stderr, and an exit code.

==== =============================================================
0    done
1    done, but a threshold of the user (``--min-robust``) was not met
2    an error that the user can correct: the message says how
70   an internal error of advkit: the traceback is shown
130  interrupted by Ctrl-C (143: by SIGTERM)
141  the reader of the output has closed it
==== =============================================================
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

import click

from advkit.core import distributed, files, memory
from advkit.core.errors import OutputError, UserError

MISSED, USER, BUG, INTERRUPTED, TERMINATED, UNREAD = 1, 2, 70, 130, 143, 141


class Terminated(KeyboardInterrupt):
    """SIGTERM; a kind of Ctrl-C, so that whatever cleans up after the one does so after the other."""


def guard(work: Callable[[], None]) -> int:
    """Runs a command and turns whatever it raises into a sentence and an exit code.

    Of processes that share the work only the first prints, and none ends before it has printed: else
    ``torchrun`` would end it, too.
    """
    distributed.join()
    with _one_voice():
        code = _guarded(work)
        if code not in (INTERRUPTED, TERMINATED):
            distributed.wait()
        return code


@contextmanager
def _one_voice() -> Iterator[None]:
    if distributed.rank() == 0:
        yield
        return
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        yield


def _guarded(work: Callable[[], None]) -> int:
    try:
        with _sigterm_interrupts():
            with distributed.together():
                code = _finish(work)
            sys.stdout.flush()
        return code
    except click.ClickException as fault:
        context = getattr(fault, "ctx", None)
        hint = f" See {context.command_path} --help" if context else ""
        _say("error", fault.format_message() + hint)
        return USER
    except UserError as fault:
        _say("error", str(fault))
        return USER
    except (KeyboardInterrupt, click.Abort) as stop:
        _say("interrupted", *getattr(stop, "__notes__", ()))
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except BrokenPipeError:
        # What is still buffered has no reader; without this the interpreter would complain when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except Exception as fault:
        sentence = _of_the_machine(fault)
        if sentence:
            _say("error", sentence)
            return USER
        traceback.print_exc()
        _say("fault", "this is an internal error of advkit; please report it with the lines above")
        return BUG


def _finish(work: Callable[[], None]) -> int:
    try:
        work()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    return 0


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _of_the_machine(fault: Exception) -> str | None:
    """The message for what the machine or the user lacks, which no library call can foresee."""
    if isinstance(fault, OSError) and fault.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.ENAMETOOLONG,
    ):
        try:
            with files.writing(fault.filename or "the output"):
                raise fault
        except OutputError as output:
            return str(output)
    if isinstance(fault, RuntimeError) and "home directory" in str(fault):  # pathlib's own
        return "this user has no home folder; set ADVKIT_HOME and ADVKIT_DATA to folders of your own"
    if memory.exhausted(fault):
        return "out of memory; try a smaller --batch-size, or another --device"
    return None


def _say(word: str, *sentences: str) -> None:
    """Writes to stderr, wrapped on a terminal only: in a log the sentence stays on one line."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    style = "bold yellow" if word == "interrupted" else "bold red"
    mark = "; " if word == "interrupted" else ": "
    text = Text(mark).join([Text(word, style), *map(Text, sentences)])
    console.print(text, soft_wrap=not console.is_terminal)
