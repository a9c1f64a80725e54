"""Recipes: a command and its configuration in a TOML file.

::

    command = "gan-train"
    about.summary = "convolutional GAN on the bundled digits"
    data = "digits"
    steps = 2000
    generator.latent_dim = 64

``command`` names a command, the other keys are those of its configuration, and ``about`` is for people. A
recipe of ``sweep`` has evaluations, which are recipes themselves; ``recipes`` adds others by their names.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import advkit
from advkit.commands import COMMANDS, Command, current
from advkit.core import config, files
from advkit.core.config import OneOf, ParametersOf, StrictModel
from advkit.core.errors import ConfigError, did_you_mean
from advkit.core.named import at
from advkit.core.registry import Registry


class About(StrictModel):
    """What a recipe says of itself."""

    summary: str = ""
    """What it does, in one line."""
    time: str = ""
    """How long it takes, and on which machine."""
    numbers: str = ""
    """What came out, measured."""


def folder() -> Path:
    """Where the shipped recipes are: inside the installed package, or beside it in a checkout."""
    package = Path(advkit.__file__).parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def names() -> list[str]:
    """Names of the shipped recipes, such as ``gan/digits``."""
    top = folder()
    return sorted(path.relative_to(top).with_suffix("").as_posix() for path in top.rglob("*.toml"))


def find(where: str | Path) -> Path:
    """The file of a recipe, by its path or by the name of a shipped one.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(where)
    if path.is_file():
        return path
    name = str(where)
    if name in names():
        return folder() / f"{name}.toml"
    raise ConfigError(
        f"there is no recipe {name!r}, neither a file nor a shipped one{did_you_mean(name, names())}; "
        "`advkit ls recipes` lists those that are shipped"
    )


def read(where: str | Path) -> dict[str, Any]:
    """What the file says, before anything is judged.

    Raises:
        ConfigError: no such recipe, or no TOML (with line and column).
    """
    path = find(where)
    try:
        return tomllib.loads(files.read(path).decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def about(where: str | Path) -> About:
    """What a recipe says of itself."""
    return config.validate(About, read(where).get("about", {}), f"{where}, about")


def load(where: str | Path, overrides: Sequence[str] = ()) -> tuple[Command, StrictModel]:
    """The command of a recipe and its configuration.

    Args:
        where: a path, or the name of a shipped recipe.
        overrides: ``"key.sub=value"``, which replace what the file says.

    Raises:
        ConfigError: one message that names every fault.
    """
    values = read(where)
    for assignment in overrides:
        config.assign(values, assignment)
    command, faults = _judged(values, str(where))
    if command is None or faults:
        raise ConfigError("; ".join(faults))
    return command, command.config.model_validate(values)


def _judged(values: dict[str, Any], where: str) -> tuple[Command | None, list[str]]:
    """The command that values name, if there is one, and all faults; what is left are the command's keys."""
    faults = _faults_of(About, values.pop("about", {}), f"{where}, about")
    name = values.pop("command", None)
    command = COMMANDS.get(current(name)) if isinstance(name, str) else None
    if command is None:
        near = did_you_mean(str(name), COMMANDS)
        wrong = f"unknown command {name!r}{near}" if name else "'command' is missing"
        return None, [*faults, f"{where}: {wrong}; known: {', '.join(COMMANDS)}"]
    if command.name == "sweep":
        faults += _evaluations(values, where)
    faults += _faults_of(command.config, values, where)
    faults += [f"{where}: {fault}" for fault in _unknown_names(command, values)]
    return command, faults + _inner_faults(command, values, where)


def _evaluations(values: dict[str, Any], where: str) -> list[str]:
    """Adds the recipes that a sweep names to its evaluations; the faults of all of these."""
    named, groups, faults = values.pop("recipes", []), values.setdefault("evaluation", {}), []
    if not isinstance(groups, dict) or not isinstance(named, list):
        return [f"{where}: 'recipes' is a list of names, and 'evaluation' a group of keys"]
    for name in map(str, named):
        if (short := name.removesuffix(".toml")) in groups:
            faults.append(f"{where}: two evaluations are called {short!r}; copy one under another name")
        groups[short] = {key: value for key, value in read(name).items() if key != "about"}
    model = {"model": values["model"][0]} if values.get("model") else {}
    for name, group in groups.items():
        if isinstance(group, dict):
            faults += _judged({**group, **model}, f"{where}, evaluation {name!r}")[1]
    return faults


def _faults_of(model: type[BaseModel], values: Any, where: str) -> list[str]:
    if not isinstance(values, dict):
        return [f"{where} is a group of keys ({', '.join(model.model_fields)}), not {values!r}"]
    try:
        config.validate(model, values, where)
    except ConfigError as fault:
        return [str(fault)]
    return []


def _unknown_names(command: Command, values: Mapping[str, Any]) -> list[str]:
    """Unknown names; those with a colon (``folder:PATH``) belong to no registry."""
    faults = []
    for key, value in values.items():
        field = command.config.model_fields.get(key)
        known = field and config.mark(field, OneOf)
        for name in value if isinstance(value, list) else [value]:
            if known and isinstance(name, str) and ":" not in name:
                faults += _unknown_name(key, name, at(known.place))
    return faults


def _unknown_name(key: str, name: str, known: Registry[Any] | Callable[[], list[str]]) -> list[str]:
    if isinstance(known, Registry):
        try:
            known.entry(name)
        except ConfigError as fault:
            return [f"{key}: {fault}"]
    elif name not in (names := known()):
        return [f"{key}: there is no {name!r}{did_you_mean(name, names)}; known: {', '.join(names)}"]
    return []


def _inner_faults(command: Command, values: Mapping[str, Any], where: str) -> list[str]:
    """What is wrong inside the groups of keys that the configuration hands on."""
    everything = {name: field.default for name, field in command.config.model_fields.items()} | dict(values)
    faults = []
    for key, group in values.items():
        field = command.config.model_fields.get(key)
        owner = field and config.mark(field, ParametersOf)
        if not owner or not isinstance(group, dict):
            continue
        named = group if owner.name is None else {owner.name.format(**everything): group}
        for name, parameters in named.items():
            if name in (registry := at(owner.place)):
                inner = f"{where}, {key}" if owner.name else f"{where}, {key}.{name}"
                faults += _faults_of(registry.get(name).Config, parameters, inner)
    return faults
