from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner, Result

from advkit import commands
from advkit.cli.app import app

HERE = Path(__file__).parent


@pytest.fixture
def advkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs the command line in this process, in an empty folder, with the command ``fake``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(HERE / "commands")])
    monkeypatch.setitem(commands.COMMANDS, "fake", commands.discover()["fake"])

    def call(*words: str) -> Result:
        return CliRunner().invoke(app, words, prog_name="advkit")

    return call


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the command line, with the command ``fake``, as a process of its own."""

    # A shell that runs the tests in the background has them, and what they start, ignore interrupts.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    path = f"from advkit import commands as c; c.__path__.append({str(HERE / 'commands')!r})"
    main = f"{path}; c.COMMANDS.update(c.discover()); from advkit.cli.app import main; main()"

    def start(*words: str, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", f"{heed}; {main}", *words],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        )

    return start
