"""The commands as Python functions: ``advkit adv-train --eps 0.1`` is ``advkit.adv_train(eps=0.1)``.

Each takes the options of the command as keywords, in the same words, and makes the same run folder. So a run
that was killed goes on when the function is called again with the same arguments, or from the command line.
"""

from __future__ import annotations

import copy
import hashlib
import html
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from advkit.commands import COMMANDS, Command, current
from advkit.core import in_hand
from advkit.core.bars import shown
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.progress import Progress
from advkit.core.runs import history
from advkit.core.stored import StoredResult, html_table
from advkit.report.outcome import Outcome, Table

if TYPE_CHECKING:
    from advkit.models.model import Model

PLACES = {"out": None, "device": "auto", "data_dir": None, "resume": False, "overwrite": False}
"""Keywords that say where and how to work, as on the command line, and their defaults."""


@dataclass(frozen=True)
class Run:
    """The result of a command: its figures, its run folder, and the models in it."""

    command: str
    outcome: Outcome = field(repr=False)
    """Sentences, tables and pictures, as the terminal and the report show them."""

    @property
    def folder(self) -> Path | None:
        """The run folder; None where the command makes none."""
        folders = [path for path in self.outcome.files if path.is_dir()]
        return folders[-1] if folders else None

    @property
    def files(self) -> tuple[Path, ...]:
        """What was written."""
        return self.outcome.files

    @property
    def passed(self) -> bool:
        """Whether every bar that was set is met: the command's exit code would be 0."""
        return self.outcome.passed

    @property
    def result(self) -> StoredResult | None:
        """The typed result, as `StoredResult.load` reads it; None where the command leaves none."""
        return self.outcome.stored

    @property
    def figures(self) -> dict[str, Any]:
        """The result as plain values, as in ``result.json``."""
        return self.outcome.result

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """A training's figures as they were written, a row each; empty for other commands."""
        return history(self.folder) if self.folder else []

    @cached_property
    def models(self) -> dict[str, Model]:
        """The models of the run folder by the names of their files, loaded when they are first asked for."""
        from advkit.models.load import load_model

        names = sorted(self.folder.glob("*.safetensors")) if self.folder else []
        return {path.stem: load_model(path) for path in names}

    @property
    def model(self) -> Model:
        """The one that the command was called for.

        Raises:
            ModelError: it made none, or several of which none is the one.
        """
        from advkit.models.load import load_model

        return load_model(self.folder or Path("no run folder"))

    def to_dict(self) -> dict[str, Any]:
        """The same as `figures`."""
        return self.figures

    def __repr__(self) -> str:
        first = f": {self.outcome.sentences[0]}" if self.outcome.sentences else ""
        return f"<{'; '.join((f'{self.outcome.title}{first}', *self.outcome.notes))}>"

    def _repr_html_(self) -> str:
        lines = (*(f"note: {note}" for note in self.outcome.notes), *self.outcome.sentences)
        said = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
        return f"<h3>{html.escape(self.outcome.title)}</h3>{said}{''.join(map(_table, self.outcome.tables))}"


def function(name: str) -> Callable[..., Run]:
    """The command ``name`` as a function."""
    command = COMMANDS[current(name.replace("_", "-"))]

    def call(*, progress: Progress | bool | None = None, **given: Any) -> Run:
        where = {key: given.pop(key) for key in PLACES if key in given}
        for key in ("out", "data_dir"):
            if where.get(key) is not None:
                where[key] = Path(where[key])
        settings, held = _named(given)
        settings = {key: _several(command.config.model_fields.get(key), of) for key, of in settings.items()}
        config = validate(command.config, settings, where=f"advkit.{call.__name__}")
        from advkit.core.modes import own_modes

        with own_modes(), in_hand.holding(held):
            return Run(command.name, command.run(config, Context(**where, progress=shown(progress))))

    call.__name__ = call.__qualname__ = command.name.replace("-", "_")
    call.__module__ = "advkit"
    call.__doc__ = _documentation(command)
    call.__signature__ = _signature(command)  # type: ignore[attr-defined]
    return call


def _named(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of plain values, and the objects that some of their names refer to."""
    settings, held = dict(given), {}
    for key, value in given.items():
        kind = type(value)
        names = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
        if "torch.nn.modules.module.Module" in names:
            digest = hashlib.sha256(kind.__qualname__.encode())
            from advkit.models.model import contents, refuse_meta

            refuse_meta(value)
            for name, tensor in value.state_dict().items():
                digest.update(name.encode() + contents(tensor))
            settings[key] = f"{in_hand.PREFIX}{digest.hexdigest()[:16]}"
            held[settings[key]] = copy.deepcopy(value)  # training goes on with a copy
        elif key == "data" and value is not None and not isinstance(value, str | Path):
            from advkit.data.load import as_splits

            splits = as_splits(value)
            content = splits["train"].fingerprint
            if splits["test"] is not splits["train"]:
                content = hashlib.sha256(f"{content}{splits['test'].fingerprint}".encode()).hexdigest()
            settings[key] = f"{in_hand.PREFIX}{content[:16]}"
            held[settings[key]] = splits
    return settings, held


def _several(about: FieldInfo | None, value: Any) -> Any:
    """A lone text, path or number as a tuple, where the field holds several and does not divide a text."""
    if about is None or not isinstance(value, str | Path | int | float):
        return value
    kinds = {about.annotation, *get_args(about.annotation)}
    several = any(get_origin(kind) is tuple for kind in kinds)
    divided = any(isinstance(part, BeforeValidator) for part in about.metadata)
    return (value,) if several and not divided else value


def _documentation(command: Command) -> str:
    lines = [inspect.cleandoc(command.config.__doc__ or command.summary), "", "Args:"]
    for name, about in command.config.model_fields.items():
        lines.append(f"    {name}: {' '.join((about.description or '').split())}")
    lines += [
        "    out: run folder, or the model file to write; by default the next folder under ``runs/``.",
        "    device: auto, cpu, cuda, cuda:1 or mps.",
        "    data_dir: folder of the data sets; by default ``$ADVKIT_DATA``, else ``~/.advkit/data``.",
        "    resume: resume an interrupted run; an error if there is none.",
        "    overwrite: an output file that exists may be replaced.",
        "    progress: shown in a terminal or a notebook by default; False: never.",
        "",
        "Returns:",
        "    A `Run`.",
        "",
        "Raises:",
        "    UserError: whatever is wrong with the options, a model or the data.",
        "",
        f"On the command line: ``{command.example}``",
    ]
    return "\n".join(lines)


def _signature(command: Command) -> inspect.Signature:
    only = inspect.Parameter.KEYWORD_ONLY
    fields = [
        inspect.Parameter(
            name,
            only,
            annotation=about.annotation,
            default=inspect.Parameter.empty
            if about.is_required()
            else about.get_default(call_default_factory=True),
        )
        for name, about in command.config.model_fields.items()
    ]
    places = [
        inspect.Parameter(name, only, default=default)
        for name, default in (PLACES | {"progress": None}).items()
    ]
    return inspect.Signature([*fields, *places], return_annotation=Run)


def _table(table: Table) -> str:
    return f"<h4>{html.escape(table.title)}</h4>{html_table(table.columns, table.rows)}"
