"""Pipes, terminals that can do little, and users without a home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from advkit.cli import recipes
from advkit.core import files

ROOT = Path(recipes.__file__).parents[2]


def run(*words: str, code: str = "", **told: str) -> subprocess.CompletedProcess[bytes]:
    """The command line in a process of its own, with ``code`` before it; its output goes into a pipe."""
    main = f"{code}\nfrom advkit.cli.app import main; main()"
    usual = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "HOME", "TERM")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", main, *words],
        env={**usual, "PYTHONPATH": str(ROOT), **told},
        capture_output=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and a store in which two names mean no model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    for name in ("clf", "gan"):
        files.write_text(tmp_path / f"home/models/names/{name}.json", json.dumps({"hash": name * 20}))
    return tmp_path


def test_a_row_is_a_line_in_a_pipe():
    lines = run("ls", "recipes").stdout.decode("utf-8").splitlines()
    names = recipes.names()
    assert [line.split()[0] for line in lines if line.split() and line.split()[0] in names] == names
    assert len(lines) == len(names) + 4  # title, an empty line, head, rule
    assert max(map(len, lines)) > 80
    narrow = run("ls", "recipes", COLUMNS="60").stdout.decode("utf-8").splitlines()
    assert max(len(line.rstrip()) for line in narrow[1:]) <= 60 and len(narrow) > len(lines)


@pytest.mark.parametrize(
    "words", [("ls",), ("ls", "attacks"), ("models", "ls"), ("data", "ls")], ids=" ".join
)
def test_json_is_all_that_standard_output_holds(words):
    done = run(*words, "--json", "-")
    assert json.loads(done.stdout) and done.stderr and done.returncode == 0


@pytest.mark.parametrize("words", [("ls", "attacks"), ("models", "ls"), ("data", "ls")], ids=" ".join)
def test_a_stream_without_unicode_gets_ascii(words):
    done = run(*words, PYTHONIOENCODING="ascii", COLUMNS="60", NO_COLOR="1", TERM="dumb")
    lines = done.stdout.decode("ascii").splitlines()
    assert done.returncode == 0 and any("-+-" in line for line in lines)
    assert not any("\\u" in line or "\x1b" in line for line in lines)


def test_trees_are_drawn_with_ascii_lines():
    drawn = "\\u251c\\u2500 \\u2502 \\u2514\\u2500 \\xfc"
    code = f"from advkit.cli import app; app.app.callback = lambda: print('{drawn}')"
    shown = run(code=code, PYTHONIOENCODING="ascii").stdout.decode("ascii")
    assert shown == "+- | `- \\xfc\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize(
    ("told", "colours", "styles"),
    [
        ({"TERM": "xterm-256color"}, True, True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, False),
    ],
    ids=["colours", "NO_COLOR", "dumb"],
)
def test_a_terminal_gets_no_more_than_it_can_do(told, colours, styles):
    import pty

    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "advkit", "ls", "no-such-kind"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **told},
        stdout=theirs,
        stderr=theirs,
        check=False,
    )
    os.close(theirs)
    shown = os.read(ours, 100_000)
    os.close(ours)
    assert b"error" in shown
    assert (b"\x1b[1;31m" in shown) == colours and (b"\x1b[1m" in shown or colours) == styles


HOMELESS = "import os, pwd\nos.getuid = lambda: 54321"


@pytest.mark.skipif(sys.platform == "win32", reason="no uid")
@pytest.mark.parametrize("words", [("ls",), ("data", "ls"), ("models", "ls")], ids=" ".join)
def test_an_unknown_user_without_a_home(words, monkeypatch):
    monkeypatch.delenv("ADVKIT_HOME")
    done = run(*words, code=HOMELESS)
    assert done.returncode in (0, 2), done.stderr
    assert done.returncode == 0 or done.stderr.count(b"error: ") == 1


READ_ONLY = """
import errno, os, sys
def refuse(event, values):
    writes = event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR)
    if event in ("os.mkdir", "os.rename") or (writes and str(values[0]).startswith(os.getcwd())):
        raise OSError(errno.EROFS, "Read-only file system", os.fsdecode(values[0]))
sys.addaudithook(refuse)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--arch", "mlp", "--data", "digits", "--epochs", "1"),
        ("cp", "gan/digits"),
        ("ls", "--json", "out.json"),
        ("ls",),
    ],
    ids=" ".join,
)
def test_a_read_only_folder(here, words):
    before = set(here.rglob("*"))
    done = run(*words, code=READ_ONLY)
    assert done.returncode == (0 if words == ("ls",) else 2), done.stderr
    assert done.returncode == 0 or done.stderr.count(b"error: ") == 1
    assert set(here.rglob("*")) == before
