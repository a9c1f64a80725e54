from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from advkit.cli.app import app
from advkit.commands.command import TRADES

HERE = Path(__file__).parent


@pytest.fixture
def advkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """Runs the command line in this process, in an empty folder, with the trade ``fake``."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    import fake_trade

    monkeypatch.setitem(TRADES, "fake", fake_trade.TRADE)

    def call(*words: str) -> Result:
        return CliRunner().invoke(app, words, prog_name="advkit")

    yield call
    monkeypatch.undo()
    TRADES.pop("fake", None)


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the command line, with the trade ``fake``, as a process of its own."""

    # A shell that runs the tests in the background has them, and what they start, ignore interrupts.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    main = "import fake_trade; from advkit.cli.app import main; main()"

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", f"{heed}; {main}", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}"},
        )

    return start
