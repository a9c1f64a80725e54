"""Policies, and the configuration of a gate; imports no torch, so that help is fast."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from advkit.core.config import Fraction, StrictModel, validate
from advkit.core.errors import ConfigError
from advkit.core.names import AttackNames, AttackParameters, CheckNames, CorruptionNames, DataName
from advkit.evaluation.corruptions.settings import COMMON, Constants, Corruptions, Severities
from advkit.models.foreign_settings import SubjectSettings

BARS = ("clean", "robust", "certified", "worst_class", "corrupted", "baseline")
"""The keys that require something."""
_CORRUPTING = {"corruptions", "severities", "constants"}
"""How ``corrupted`` is measured, and nothing else."""


class _Measured(StrictModel):
    """How the numbers are measured, with the keys of `advkit attack`; at the top of a policy for all."""

    data: DataName | None = None
    """Data set (see `advkit ls data`); by default what the classifier was trained on."""
    split: Literal["test", "train", "all"] | None = None
    """Which part of the data."""
    n: int | None = Field(None, ge=1)
    """Use only N images."""
    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured."""
    eps: Fraction | None = Field(None, gt=0)
    """Largest change allowed, for pixels in [0, 1]."""
    attack: AttackNames = Field(("cascade",), min_length=1)
    """Attacks and ensembles, in order."""
    parameters: AttackParameters = {}
    """Parameters of the attacks."""
    seed: int = Field(0, ge=0)
    """Every random number follows from it."""
    eight_bit: bool = False
    """Round adversarial images to 8 bits."""
    certify: bool | Literal["complete"] = False
    """Certify images first, with "complete" also by branch and bound; ``certified`` asks for it, too."""
    corruptions: CorruptionNames = Field(COMMON, min_length=1)
    """Corruptions, for ``corrupted``."""
    severities: Severities = (1, 2, 3, 4, 5)
    """Severities of them."""
    constants: Constants = None
    """The published set whose constants are used; by default that of images like these."""


class Requirement(_Measured):
    """One requirement: how it is measured, and what must be reached."""

    name: str
    """For reports."""
    clean: Fraction | None = Field(None, ge=0, le=1)
    """Least clean accuracy."""
    robust: Fraction | None = Field(None, ge=0, le=1)
    """Least robust accuracy."""
    certified: Fraction | None = Field(None, ge=0, le=1)
    """Least certified accuracy; images are then certified first."""
    worst_class: Fraction | None = Field(None, ge=0, le=1)
    """Least robust accuracy of each class."""
    corrupted: Fraction | None = Field(None, ge=0, le=1)
    """Least mean accuracy under common corruptions (`advkit corrupt`); nothing is attacked then."""
    of: Literal["interval", "accuracy"] = "interval"
    """What must reach these: the lower end of the exact 95 % interval, or the accuracy itself."""
    baseline: str | None = None
    """A run of `advkit attack` on the earlier model, by number or path, with the same settings; for
    ``corrupted`` one of `advkit corrupt`."""
    points: float = Field(1.0, ge=0, le=100)
    """With 95 % confidence the accuracy, robust or corrupted, is at most so many points below that one's."""
    accept_doubt: CheckNames = ()
    """Checks (see `advkit ls checks`) whose doubt is no failure."""

    @model_validator(mode="after")
    def _requires_something(self) -> Requirement:
        if all(getattr(self, key) is None for key in BARS):
            raise ValueError(f"{self.name!r} requires nothing; give one of {', '.join(BARS)}")
        attacked = [key for key in ("robust", "certified", "worst_class") if getattr(self, key) is not None]
        if self.corrupted is not None and attacked:
            raise ValueError(
                f"{self.name!r} requires corrupted and {attacked[0]}; make two requirements of it"
            )
        return self

    @property
    def asked(self) -> dict[str, Any]:
        """Its keys, but those that it does not use and older versions did not have."""
        new = {"corrupted", *_CORRUPTING} if self.corrupted is None else set()
        return self.model_dump(mode="json", exclude=new if self.certify else {*new, "certify"})

    def measuring(self) -> dict[str, Any]:
        """Settings of `advkit attack`, or of `advkit corrupt`, that it asks for."""
        if self.corrupted is not None:
            return self.model_dump(include=set(Corruptions.model_fields) - {"baseline"}, exclude_unset=True)
        keys = set(_Measured.model_fields) - _CORRUPTING
        certify = {"certify": self.certify or True} if self.certified is not None else {}
        return self.model_dump(include=keys, exclude_unset=True) | certify


class Policy(_Measured):
    """What a model must reach to be released."""

    require: tuple[Requirement, ...] = Field(min_length=1)
    """The requirements; a key that one lacks is that of the policy."""

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("require"), list):
            return values
        shared = {key: value for key, value in values.items() if key in _Measured.model_fields}
        require = [shared | one if isinstance(one, dict) else one for one in values["require"]]
        return values | {"require": require}

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Reads a policy, a TOML file.

        Raises:
            ConfigError: there is none, or it has faults, all of which the message names.
        """
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except OSError as fault:
            raise ConfigError(
                f"{path} cannot be read ({fault}); `advkit gate init RUN` writes one"
            ) from fault
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
            raise ConfigError(f"{path} is not TOML: {fault}") from fault
        policy = validate(cls, values, str(path))
        names = [one.name for one in policy.require]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"{path}: {', '.join(twice)} names two requirements; name each once")
        return policy


class Gate(SubjectSettings):
    """Check a model against a policy: all its requirements, in one report and one exit code.

    A policy is a TOML file, which `advkit gate init RUN` writes from a run. The exit code is 1 if a
    requirement is not met or a check doubts a number. The run folder holds the outcome as JUnit XML, SARIF,
    Markdown and a badge, too. --data, --split and --n replace those of the policy.
    """

    policy: tuple[str, ...] = Field(min_length=1)
    """Files with requirements; all of them must be met."""
