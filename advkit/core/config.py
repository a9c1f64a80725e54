"""Configuration as strict pydantic models: unknown keys are errors, all faults are reported at once."""

from __future__ import annotations

import reprlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from advkit.core.errors import LONGEST, MOST, ConfigError, did_you_mean

Precision = Literal["auto", "float32", "bfloat16"]
"""Arithmetic of a network's passes; auto: bfloat16 where the processor computes in it."""


class StrictModel(BaseModel):
    """Base of every configuration: immutable, no unknown keys, no NaN."""

    irrelevant: ClassVar[tuple[str, ...]] = ()
    """Fields that do not determine the result, except by rounding."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),  # a field may be called model_hash
    )

    @property
    def identity(self) -> Self:
        """The part that determines the result; a resumed run must have the same."""
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].default for name in self.irrelevant})


def parse_fraction(value: Any) -> Any:
    """``"8/255"`` as a float; everything else is left for pydantic to judge."""
    if isinstance(value, str) and value.count("/") == 1:
        above, below = value.split("/")
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{value!r} is no fraction; write for example 8/255 or 0.03") from error
    return value


@dataclass(frozen=True)
class OneOf:
    """Marks a field whose values are names: who knows them.

    Args:
        place: ``module:attribute``, a registry or a function that returns all names.
    """

    place: str


@dataclass(frozen=True)
class ParametersOf:
    """Marks a field that holds the parameters of something registered.

    Args:
        place: ``module:attribute`` of the registry.
        name: of the thing, made of the configuration's values; None where the field holds a group of
            parameters for each name.
    """

    place: str
    name: str | None = None


Mark = TypeVar("Mark", OneOf, ParametersOf)


def mark(field: FieldInfo, kind: type[Mark]) -> Mark | None:
    """The mark of that kind on a field, or on a part of its type."""
    return next((found for found in _marks(field) if isinstance(found, kind)), None)


def _marks(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for part in _parts(field):
        yield from getattr(part, "__metadata__", ())


def _parts(field: FieldInfo) -> Iterator[Any]:
    """Its type, and those that this is made of."""
    pending: list[Any] = [field.annotation]
    while pending:
        yield (part := pending.pop())
        pending += get_args(part)


UNITS = {"s": 1, "m": 60, "h": 3600}
"""Seconds of each unit of a time."""


def parse_seconds(value: Any) -> Any:
    """``"90s"``, ``"10m"`` or ``"2h"`` in seconds; everything else is left for pydantic to judge."""
    if not isinstance(value, str):
        return value
    number, unit = value.strip()[:-1], value.strip()[-1:]
    try:
        return float(number) * UNITS[unit]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{value!r} is no time; write for example 90s, 10m or 2h") from error


def parse_names(value: Any) -> Any:
    """``"a, b"`` as a tuple of names; everything else is left for pydantic to judge."""
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


VALUES = 5_000_000
"""Largest number of values in one configuration, result or card."""
Fraction = Annotated[float, BeforeValidator(parse_fraction)]
"""A number that may be written as a fraction: ``"8/255"``."""
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
"""Seconds that may be written with a unit: ``"90s"``, ``"10m"`` or ``"2h"``."""

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """Builds ``model`` from plain values.

    Raises:
        ConfigError: one message that names every fault with its place in ``where``.
    """
    _refuse_large(values, where)
    _refuse_truth(model, values, where)
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_faults(model, error))) from error


def _refuse_large(values: Any, where: str) -> None:
    """Raises a `ConfigError` for an integer that has no 64 bits, or for too many values."""
    pending, seen = [values], 0
    while pending:
        value, seen = pending.pop(), seen + 1
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ConfigError(
                f"{where}: a number has {value.bit_length():,} bits, and 64 are the most; write a smaller one"
            )
        if isinstance(value, Mapping):
            pending += [*value.values()]
        elif isinstance(value, list | tuple):
            pending += value
        if seen + len(pending) > VALUES:
            raise ConfigError(f"{where}: holds more than {VALUES:,} values; is it the right file?")


def _refuse_truth(model: type[BaseModel], values: Mapping[str, Any], where: str) -> None:
    """Raises a `ConfigError` for true or false in place of a number, which pydantic would take for 1 or 0."""
    for name, value in values.items():
        if (field := model.model_fields.get(name)) is None:
            continue
        parts = [*_parts(field)]
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, bool) and (int in parts or float in parts) and bool not in parts:
                raise ConfigError(f"{where}: {name}: {str(one).lower()} is no number")
            if isinstance(one, Mapping):
                for part in parts:
                    if isinstance(part, type) and issubclass(part, BaseModel):
                        _refuse_truth(part, one, f"{where}: {name}")


def _faults(model: type[BaseModel], error: ValidationError) -> list[str]:
    faults = []
    for fault in islice(error.errors(include_url=False), MOST + 1):  # the others are only counted
        place = ".".join(str(part) for part in fault["loc"])[:LONGEST]
        if fault["type"] == "extra_forbidden":
            known = _keys_at(model, fault["loc"][:-1])
            near = did_you_mean(str(fault["loc"][-1]), known)
            faults.append(f"unknown key {place!r}{near}; known: {', '.join(known)}")
        elif fault["type"] == "missing":
            faults.append(f"{place!r} is missing")
        else:
            said = fault["msg"].removeprefix("Value error, ")
            got = reprlib.repr(fault["input"])
            faults.append(f"{place}: {said} (got {got})" if place else said)
    return faults


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def assign(values: dict[str, Any], assignment: str) -> None:
    """Writes ``"a.b=v"`` into nested ``values``; ``v`` is a TOML value, or else a plain string."""
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {assignment!r} has no '='; write KEY=VALUE, for example --set steps=100")
    *parents, last = path.strip().split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {assignment!r}: {parent!r} holds a value, not a group of keys")
    try:
        values[last] = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):  # no TOML; a number of 5,000 digits is none either
        values[last] = text
