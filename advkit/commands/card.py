"""Write a model card with what runs have measured."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_core import to_jsonable_python

from advkit.commands import COMMANDS, current
from advkit.core import files
from advkit.core.config import StrictModel
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.run_list import find, numbered, read
from advkit.core.runs import began
from advkit.report import card as report
from advkit.report.measured import Measured
from advkit.report.outcome import Outcome, planned

GROUP = "Robustness"
EXAMPLE = "advkit card 12 15 --out README.md"
OPERANDS = "runs"
BESIDE = "runs"


class Config(StrictModel):
    """Write a model card in Markdown, with the metadata that model hubs read, of what RUNS have measured.

    Each figure has the hash of its run, and each run its seed, its versions and the command with which anyone
    who has the model gets the same figures. The card is MODEL_CARD.md unless --out names another.
    """

    runs: tuple[str, ...] = Field(min_length=1)
    """Runs of attack, certify, smooth, curve, corrupt and compare that have one model in common, by number or
    path."""


def run(config: Config, context: Context) -> Outcome:
    """Writes the card."""
    out = context.out or Path("MODEL_CARD.md")
    files.refuse_to_replace(out, overwrite=context.overwrite)
    paths = [path if (path := find(name)).is_dir() else path.parent for name in config.runs]
    found = [{one.model_hash: one for one in Measured.of(read(path))} for path in paths]
    common = set.intersection(*(set(models) for models in found))
    if len(common) != 1:
        why = (
            "have several models in common; name a run of one of them, too"
            if common
            else "have no model in common"
        )
        raise ConfigError(f"{', '.join(config.runs)} {why}; a card is of one model", code="not-comparable")
    (model,) = common
    measured = [models[model] for models in found]
    if context.dry_run:
        return planned(f"a card of {len(measured)} runs in {out}", runs=len(measured))
    files.write_text(out, report.text(measured, [_typed(one.row.path) for one in measured]))
    return report.outcome(measured, out)


def _typed(path: Path) -> list[str]:
    """The command of a run as one types it, behind those of the runs that it reads."""
    resolved = began(path / "resolved.json")
    name, settings = current(resolved["command"]), resolved["config"]
    if name == "corrupt":
        settings["baseline"] = None  # no accuracy depends on it
    sources = [_place(run) for run in settings.get("runs", ())]
    words = ["advkit", name, *map(str, sources)]
    for key, field in COMMANDS[name].config.model_fields.items():
        usual = None if field.is_required() else field.get_default(call_default_factory=True)
        value = settings.get(key)
        if not sources and value not in (None, to_jsonable_python(usual)):
            words += _flag(key, value)
    known = [path for path in sources if (path / "resolved.json").exists()]
    before = [f"{line} --out={shlex.quote(str(path))}" for path in known for line in _typed(path)]
    return [*before, shlex.join(words)]


def _place(run: str) -> Path:
    """Of a run that another read; it may be gone."""
    path = Path(run)
    return path if path.exists() else numbered(run) or path


def _flag(key: str, value: Any) -> list[str]:
    flag = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, str | int | float):
        return [flag, str(value)]
    if isinstance(value, list) and all(
        isinstance(one, str | int | float) and "," not in str(one) for one in value
    ):
        return [flag, ",".join(map(str, value))]
    return ["--set", f"{key}={_toml(value)}"]


def _toml(value: Any) -> str:
    """Plain values as TOML in one line."""
    if isinstance(value, Mapping):
        pairs = (
            f"{key if re.fullmatch(r'[A-Za-z0-9_-]+', key) else json.dumps(key)} = {_toml(each)}"
            for key, each in value.items()
            if each is not None
        )
        return f"{{{', '.join(pairs)}}}"
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, list) else json.dumps(value)
