"""The reference says something about everything that is registered."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import click
import pytest

from advkit.cli.app import app
from advkit.cli.ls import KINDS

HOOK = Path(__file__).parents[2] / "docs" / "config" / "reference.py"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    pytest.importorskip("mkdocs", reason="the reference is a hook of MkDocs: pip install '.[docs]'")
    spec = importlib.util.spec_from_file_location("advkit_reference", HOOK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_everything_has_a_section(reference, kind):
    headings = [line for line in reference.page(kind).splitlines() if line.startswith("##")]
    rows = list(KINDS[kind].rows())
    assert rows
    for row in rows:
        heading = f"## advkit {row.name}" if kind == "commands" else f"## {row.name}"
        assert heading in headings


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_explained(kind):
    """A summary for each thing, and for each of its parameters what it means."""
    silent = []
    for row in KINDS[kind].rows():
        if not row.summary.strip():
            silent.append(row.name)
        settings = getattr(row.entry.thing, "Config", None) if row.entry else None
        fields = settings.model_fields if settings else {}
        silent += [f"{row.name}: {key}" for key, field in fields.items() if not field.description]
    assert silent == []


def test_every_option_is_explained():
    silent = []
    context = click.Context(app)
    for name in app.list_commands(context):
        command = app.get_command(context, name)
        inner = list(command.commands.values()) if isinstance(command, click.Group) else [command]
        silent += [
            f"{name} {option.opts[0]}"
            for each in inner
            for option in each.params
            if isinstance(option, click.Option) and not option.help and not option.hidden
        ]
    assert silent == []


def test_parameters_stand_with_their_defaults(reference):
    assert "| `steps` | `40` | Gradient steps per start. |" in reference.page("attacks")


def test_markup_in_prose_is_shown_as_it_is(reference):
    page = reference.page("attacks")
    assert r"x0 + eps \* sign(gradient of the cross-entropy)" in page
    assert "`advkit ls attack-losses`" in page
