from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest

from advkit import __version__
from advkit.cli.app import HOUSEKEEPING, OVERVIEW, app
from advkit.cli.described import Described
from advkit.cli.ls import KINDS
from advkit.cli.options import common
from advkit.commands import COMMANDS


def _commands() -> list[tuple[str, ...]]:
    """Every command and subcommand."""
    found: list[tuple[str, ...]] = [()]
    for name in (*COMMANDS, *HOUSEKEEPING):
        found.append((name,))
        command = app.get_command(click.Context(app), name)
        if isinstance(command, click.Group):
            found += [(name, inner) for inner in command.commands]
    return found


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_every_help_describes_and_ends_with_an_example(advkit, words):
    answer = advkit(*words, "--help")
    assert answer.exit_code == 0
    usage, description, *_ = answer.output.split("\n\n")
    assert usage.startswith(f"Usage: {' '.join(('advkit', *words))}")
    assert len(description.split()) >= 3
    example = answer.output.split("Example:\n")[1]
    assert all(line.startswith("  advkit ") for line in example.splitlines())


@pytest.mark.parametrize("words", [words for words in _commands() if words], ids=" ".join)
def test_every_example_is_accepted(words):
    """The flags in examples exist, and their values are of the right type."""
    command: click.Command = app
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    assert isinstance(command, Described)
    for line in command.example.splitlines():
        called = line.split()[1:]
        inner: click.Command = app
        context = click.Context(app)
        while isinstance(inner, click.Group) and not called[0].startswith("-"):
            name = called.pop(0)
            context = click.Context(inner, parent=context)
            found = inner.get_command(context, name)
            assert found is not None, line
            inner = found
        inner.make_context(inner.name, called, parent=context)


@pytest.mark.parametrize("name", COMMANDS)
def test_configurations_fit_the_command_line(name):
    """No field hides a common flag, every field is explained, and `advkit ls KIND` is never a dead end."""
    fields = COMMANDS[name].config.model_fields
    assert not {parameter.name for parameter in common()} & set(fields)
    assert [field for field, about in fields.items() if not about.description] == []
    said = " ".join(str(about.description) for about in fields.values())
    assert set(re.findall(r"`advkit ls ([\w-]+)", said)) <= set(KINDS)


@pytest.mark.parametrize(
    "words",
    [[], ["--help"], ["gan-train", "--help"], ["ls", "--help"], ["models", "ls"], ["data", "ls"], ["ls"]],
    ids=str,
)
def test_help_imports_nothing_heavy(words, tmp_path, monkeypatch):
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path))  # a model in the store is read with NumPy
    heavy = ("torch", "numpy", "matplotlib", "scipy", "sklearn", "jinja2", "PIL", "art")
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print([m for m in {heavy} if m in sys.modules], file=sys.stderr))\n"
        "from advkit.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "advkit" in done.stdout


def test_help_fits_on_one_screen(advkit):
    lines = advkit("--help").output.splitlines()  # with the command fake
    assert len(lines) <= 40 + 1 and max(map(len, lines)) <= 80
    beside = {name for name, one in (HOUSEKEEPING | COMMANDS).items() if one.beside}
    assert beside == {"board", "card", "cp", "validate", "gate-init", "merge", "sweep"}
    own = {*COMMANDS, *HOUSEKEEPING} - beside
    for name in own:
        assert sum(line[13:].startswith(f"{name} ") for line in lines) == 1


def test_alone_it_names_three_commands(advkit):
    answer = advkit()
    assert answer.exit_code == 0
    assert answer.output == OVERVIEW.format(version=__version__)
    assert sum(line.startswith("  advkit ") for line in answer.output.splitlines()) == 3


def test_version(advkit):
    assert advkit("--version").output == f"advkit {__version__}\n"


def test_a_group_alone_prints_its_help(advkit):
    answer = advkit("models")
    assert answer.exit_code == 0
    assert answer.output == advkit("models", "--help").output


def test_flags_follow_the_configuration(advkit):
    text = " ".join(advkit("fake", "--help").output.split())
    assert "--model TEXT What to pretend with. [required]" in text
    assert "--steps INTEGER How often to pretend. [default: 3]" in text
    assert "--eps NUMBER Budget. [default: 0.25]" in text
    assert "--norm linf|l2" in text
    assert "--attack TEXT,... What to pretend. [default: pgd,noise]" in text
    assert "--labels INTEGER|all" in text
    assert "--scratch / --no-scratch" in text
    assert "inner.KEY=VALUE" in text
    assert "--inner" not in text
    assert "--json" in text and "--dry-run" in text
