"""What the shell completes to: nothing that is refused, nothing missing, in no time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem, ShellComplete

from advkit.cli import completion
from advkit.cli.app import app
from advkit.cli.ls import KINDS, names
from advkit.commands import COMMANDS
from advkit.core import files
from advkit.core.config import OneOf, mark
from advkit.core.named import at
from advkit.core.registry import Registry
from advkit.models.shipped import SHIPPED


def complete(line: str) -> list[CompletionItem]:
    """What ``advkit LINE`` with the cursor at its end can go on with."""
    *words, last = line.split(" ")
    return ShellComplete(app, {}, "advkit", "_").get_completions(words, last)


def plain(line: str) -> list[str]:
    return [item.value for item in complete(line) if item.type == "plain"]


PLACES = sorted(
    {
        known.place
        for command in COMMANDS.values()
        for field in command.config.model_fields.values()
        if (known := mark(field, OneOf))
    }
)


@pytest.mark.parametrize("place", PLACES)
def test_names_are_those_that_are_accepted(place):
    offered = set(completion.of_kinds(*completion.KINDS[place])())
    known = at(place)
    if isinstance(known, Registry):
        assert offered == {entry.name for entry in known}
    else:
        art = {name for name in offered if name.startswith("art:")}
        aliases = {alias for kind in ("attacks", "ensembles") for alias in _aliases(kind)}
        assert offered - art == set(known()) - aliases
        assert bool(art) == ("attack" in place)


def _aliases(kind: str) -> set[str]:
    rows = [row.entry for row in KINDS[kind].rows() if row.entry]
    return {alias for entry in rows for alias in entry.aliases}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_field_that_names_a_model_completes_to_the_store(name):
    for field, about in COMMANDS[name].config.model_fields.items():
        said = str(about.description)
        assert ("in the store" in said or "store name" in said) <= (field in completion.MODELS), field


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs and a file, and a store with one name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))
    files.write_text(tmp_path / "home/models/names/stored.json", '{"hash": "' + 16 * "0123" + '"}')
    for name in ("00001-attack", "00002-certify"):
        files.write_text(tmp_path / "runs" / name / "resolved.json", "{}")
    files.write_text(tmp_path / "storm.pt", "")
    return tmp_path


def test_values(place):
    assert plain("attack --norm l") == ["linf", "l2", "l1", "l0"]
    assert plain("attack --attack ") == [*names("attacks"), *names("ensembles"), *names("art-attacks")]
    assert plain("attack --attack pgd,apgd-c") == ["pgd,apgd-ce"]
    assert plain("attack --attack=art:Fast") == ["art:FastGradientMethod"]
    assert "relativistic" in plain("gan-train --loss r") and plain("gan-train --arch conv-v") == ["conv-vae"]
    assert plain("train --data dig") == ["digits"] == plain("data get dig")
    assert plain("run gan/di") == ["gan/digits"] == plain("validate gan/mnist-conv-gan gan/di")
    assert plain("ls gan-l") == ["gan-losses"] and plain("ls gan-losses hin") == ["hinge"]
    assert "lineage" in plain("models ") and "completion" in plain("")
    assert plain("ls no-such-kind x") == [] == plain("no-such-command x")


def test_models_and_runs(place):
    runs, ships = ["runs/00002-certify", "runs/00001-attack"], [f"advkit:{name}" for name in SHIPPED]
    for line in ("attack --model ", "gan-compare ", "patch --transfer "):
        assert plain(line) == ["stored", *ships, *runs]
        assert complete(line)[0].type == "file"
    assert plain("models show s") == ["stored"]
    assert plain("attack --out ") == runs
    (place / "home/models/names/stored.json").write_text("no JSON", encoding="utf-8")
    assert plain("models show s") == []


BASH = """\
set -e
eval "$(advkit completion bash)"
COMP_LINE="$1"; COMP_POINT=${#1}
compopt() { :; }
_advkit_completion advkit
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """\
compdef() { :; }
eval "$(advkit completion zsh)"
compadd() { shift 4; print -l -- "${completions[@]}"; }
_describe() { print -l -- "${completions_with_descriptions[@]%%:*}"; }
_path_files() { print -l *; }
words=(${(s: :)1} "${1##*[^ ]}"); [[ $1 == *' ' ]] || words[-1]=(); CURRENT=$#words
_advkit_completion
"""


def _asked(shell: str, line: str) -> list[str]:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    if shell == "fish":
        script = 'advkit completion fish | source; complete -C "$argv[1]"'
        words = [path, "--no-config", "-c", script, line]
    else:
        words = [path, "-fc" if shell == "zsh" else "-c", ZSH if shell == "zsh" else BASH, shell, line]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [answer.partition("\t")[0].strip() for answer in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_works_in_its_shell(shell, place, monkeypatch):
    program = place / "bin" / "advkit"
    files.write_text(program, f'#!/bin/sh\nexec "{sys.executable}" -W ignore -m advkit "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(completion.__file__).parents[2]))
    assert _asked(shell, "advkit gan-t") == ["gan-train"]
    assert sorted(_asked(shell, "advkit attack --norm l")) == ["l0", "l1", "l2", "linf"]
    assert {"stored", "storm.pt"} <= set(_asked(shell, "advkit attack --model sto"))
    assert _asked(shell, "advkit attack --attack art:FastG")[0].endswith("FastGradientMethod")


def test_bash_breaks_words_at_colons(place, monkeypatch):
    monkeypatch.setenv("COMP_WORDS", "advkit attack --attack=art:Fast")
    shell = completion.Bash(app, {}, "advkit", "_")
    assert shell.complete() == "plain,art:FastGradientMethod"
    monkeypatch.setenv("COMP_WORDS", "advkit train --data ")
    assert "plain,digits" in shell.complete().splitlines()


def test_a_press_imports_nothing_heavy(place):
    code = (
        "import sys, atexit\n"
        "heavy = 'torch', 'numpy', 'matplotlib', 'scipy', 'art'\n"
        "atexit.register(lambda: print([m for m in heavy if m in sys.modules], file=sys.stderr))\n"
        "from advkit.cli.app import main; main()"
    )
    for line in ("attack --attack ", "gan-train --arch ", "attack --model ", "run ", "train --data "):
        asked = {**os.environ, "_ADVKIT_COMPLETE": "bash_complete", "COMP_WORDS": f"advkit {line}"}
        words = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(words, env=asked, capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]" and done.stdout
