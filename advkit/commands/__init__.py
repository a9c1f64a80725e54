"""The commands, one file each: ``attack.py`` is ``advkit attack``.

A file says what its command does (the first line of its docstring), its ``GROUP`` in ``advkit --help``, an
``EXAMPLE``, and where its settings are imported from, a pydantic class that it calls ``Config``. It has one
function, ``run(config, context) -> Outcome``. The command line makes its flags of ``Config``, and recipes
their keys. These facts are read from the text above the first function, so that neither a listing nor help
imports PyTorch.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advkit.core.config import StrictModel
from advkit.core.context import Context
from advkit.core.named import at
from advkit.report.outcome import Outcome

GROUPS = ("Start", "GANs", "Classifiers", "Robustness", "Attacks", "Defences")
"""The groups of ``advkit --help``, in their order."""
FACTS = ("GROUP", "EXAMPLE", "DISTRIBUTED", "OPERANDS", "FORMERLY", "BESIDE")


@dataclass(frozen=True)
class Command:
    """What is known of a command before its file is imported."""

    name: str
    summary: str
    group: str
    example: str
    settings: str
    """``module:class`` of its configuration."""
    distributed: bool = False
    """Several processes, as ``torchrun`` starts them, share the work."""
    operands: str = ""
    """The key of the configuration, a list, whose values can be typed without a flag."""
    formerly: tuple[str, ...] = ()
    """Older names, which still work."""
    beside: str = ""
    """The command whose options tell of it, so that the overview need not."""

    @property
    def config(self) -> type[StrictModel]:
        """The configuration class."""
        found: type[StrictModel] = at(self.settings)
        return found

    @property
    def run(self) -> Callable[[Any, Context], Outcome]:
        """The function that does the work."""
        name = self.name.replace("-", "_")
        found: Callable[[Any, Context], Outcome] = importlib.import_module(f"{__name__}.{name}").run
        return found


def read(file: Path) -> Command:
    """The command of a file, which is not imported."""
    head = re.split(r"^(?:def|class|@)", file.read_text("utf-8"), maxsplit=1, flags=re.MULTILINE)[0]
    tree = ast.parse(head)
    facts: dict[str, Any] = {}
    settings = f"{__name__}.{file.stem}:Config"
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if (name := node.targets[0].id) in FACTS:
                facts[name.lower()] = ast.literal_eval(node.value)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.asname == "Config":
                    settings = f"{node.module}:{alias.name}"
    summary = (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")
    name = file.stem.replace("_", "-")
    return Command(name=name, summary=summary[:1].lower() + summary[1:], settings=settings, **facts)


def discover() -> dict[str, Command]:
    """By name, in the order of their groups, what the folders of this package hold."""
    files = [file for place in __path__ for file in sorted(Path(place).glob("[!_]*.py"))]
    found = [read(file) for file in files]
    return {one.name: one for one in sorted(found, key=lambda one: GROUPS.index(one.group))}


COMMANDS = discover()


def current(name: str) -> str:
    """The name of a command today; for an older name, with a message on stderr."""
    new = next((one.name for one in COMMANDS.values() if name in one.formerly), name)
    if new != name:
        sys.stderr.write(f"advkit {name} is now advkit {new}; the old name still works in this release\n")
    return new
