"""``art:NAME``: an evasion attack of the Adversarial Robustness Toolbox (ART) as an advkit attack."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, create_model
from torch import Tensor, nn

from advkit.attacks.attack import ATTACKS, Attack, Rows, State
from advkit.attacks.engine.oracle import Oracle
from advkit.core.config import Fraction, StrictModel
from advkit.core.errors import ConfigError, UserError, did_you_mean
from advkit.core.registry import Entry
from advkit.core.threat import Norm, Threat
from advkit.integrations import art_index
from advkit.integrations.art_index import REQUIRED, UNKNOWN, AttackInfo, Parameter
from advkit.integrations.generators import seeded

_SET_BY_ADVKIT = ("targeted", "verbose", "summary_writer")
"""Parameters that advkit sets, or that write log files."""

_LINF = ("BasicIterativeMethod",)
"""Attacks with a budget but no ``norm`` parameter."""

_PROBABILITIES = ("NewtonFool", "SimBA", "VirtualAdversarialMethod")
"""Attacks that expect probabilities; the others get logits."""

_ALWAYS_TARGETED = ("SaliencyMapMethod",)
"""Attacks for which ``y`` is always the target class; without one, they choose it themselves."""

_PACKAGES = {"cv2": "opencv-python", "ffmpeg": "ffmpeg-python"}
"""Packages whose module has another name."""


class ArtAttack(Attack[State]):
    """An attack of ART on one image at a time, with any number of queries.

    It gets a classifier whose every pass is counted and recorded. Its result is projected into the threat
    model and evaluated; so is every query inside it, and the attack ends at the first success.
    """

    info: ClassVar[AttackInfo]
    steps = 1
    single_image = True
    cost = "unknown"

    def __init__(self, config: StrictModel, threat: Threat) -> None:
        super().__init__(config, threat)
        if fault := art_index.cannot_run(self.info.name):
            raise ConfigError(f"{self._name} cannot run here: {fault}")
        self._settings = _parameters_for(self.info, config.model_dump(exclude_defaults=True), threat)
        with self._errors_explained():  # checked by ART itself, before any work
            self._build(_classifier(_ConstantNetwork(), (3, 32, 32), 10, "cpu"), targeted=False)

    def start(self, rows: Rows) -> State:
        """The originals."""
        return State(rows, rows.x0, rows.label.new_zeros(len(rows)))

    def step(self, state: State, oracle: Oracle) -> State:
        """The whole attack, row by row."""
        rows = state.rows
        each = torch.arange(len(rows), device=rows.x0.device).split(1)
        x = torch.cat([self._generate(rows.take(index), oracle) for index in each])
        if not oracle.adversarial_found:
            oracle.query(x)
        return State(rows, x, state.iteration)

    def _generate(self, row: Rows, oracle: Oracle) -> Tensor:
        x0 = row.x0
        if row.target_class is not None and not self._targetable:
            raise ConfigError(f"{self._name} has no targeted form; leave the target out")
        kind = "gpu" if x0.device.type == "cuda" else "cpu"
        with seeded(x0.device, int(row.key)), np.errstate(all="ignore"), self._errors_explained():
            classes = oracle.single_image_logits(x0).shape[1]
            network = _CountedNetwork(oracle, x0.device, probabilities=self.info.name in _PROBABILITIES)
            classifier = _classifier(network, tuple(x0.shape[1:]), classes, kind)
            y_class = row.target_class if row.target_class is not None else row.label
            y: Any = np.eye(classes, dtype=np.float32)[y_class.cpu().numpy()]
            if row.target_class is None and self.info.name in _ALWAYS_TARGETED:
                y = None
            try:  # some query the classifier when they are made
                attack = self._build(classifier, targeted=row.target_class is not None)
                found = attack.generate(x0.cpu().numpy(), y=y)
            except _FoundError:
                return x0
        x = torch.as_tensor(np.asarray(found, dtype=np.float32), device=x0.device)
        return self.threat.project(torch.where(x.isfinite(), x, x0), x0)

    @property
    def _name(self) -> str:
        return f"art:{self.info.name}"

    @property
    def _targetable(self) -> bool:
        named = any(parameter.name == "targeted" for parameter in self.info.parameters)
        return named or self.info.name in _ALWAYS_TARGETED

    def _build(self, classifier: Any, *, targeted: bool) -> Any:
        """The ART object."""
        kind = getattr(importlib.import_module(self.info.module), self.info.name)
        quiet = {"targeted": targeted, "verbose": False}
        names = {parameter.name for parameter in self.info.parameters}
        arguments = self._settings | {key: value for key, value in quiet.items() if key in names}
        attack = kind(classifier, **arguments)
        for part in getattr(attack, "attacks", ()):  # an ensemble does not pass ``verbose`` on
            part.verbose = False
        return attack

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        """Turns errors of ART into a ConfigError with a remedy."""
        try:
            yield
        except UserError:
            raise
        except ImportError as error:
            module = (error.name or "").partition(".")[0]
            if not module:
                raise
            raise ConfigError(
                f"{self._name} needs the module {module!r}, which is not installed; "
                f"run: pip install {_PACKAGES.get(module, module)}"
            ) from error
        except Exception as error:  # ART raises errors of any kind
            lines = str(error).strip().splitlines()
            raise ConfigError(
                f"{self._name} under {self.threat} fails ({lines[0] if lines else type(error).__name__}); "
                f"change its parameters (`advkit ls art-attacks {self._name}`) or choose another attack"
            ) from error


class _FoundError(BaseException):
    """An adversarial example was found; not an `Exception`, so that ART does not catch it."""


class _CountedNetwork(nn.Module):
    """The network for ART: every pass goes through the oracle."""

    def __init__(self, oracle: Oracle, device: torch.device, *, probabilities: bool) -> None:
        super().__init__()
        self._oracle, self._device, self._probabilities = oracle, device, probabilities

    def forward(self, x: Tensor) -> Tensor:
        logits = self._oracle.single_image_logits(x.to(self._device, torch.float32))
        if self._oracle.adversarial_found:
            raise _FoundError
        return (logits.softmax(1) if self._probabilities else logits).to(x.device)


class _ConstantNetwork(nn.Module):
    """Ten classes with equal logits: enough for ART to check an attack's parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * 0


def _classifier(network: nn.Module, shape: tuple[int, ...], classes: int, device_type: str) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        network, nn.CrossEntropyLoss(), shape, classes, clip_values=(0.0, 1.0), device_type=device_type
    )


def _parameters_for(info: AttackInfo, given: Mapping[str, Any], threat: Threat) -> dict[str, Any]:
    """The parameters for ART: those of the user, and those that follow from the threat model."""
    settings = dict(given)
    defaults = {parameter.name: parameter.default for parameter in info.parameters}
    if isinstance(defaults.get("norm"), str):  # it has its own distance
        return settings
    if "norm" in defaults:
        settings.setdefault("norm", {"linf": np.inf, "l2": 2, "l1": 1}[threat.norm])
    if "eps" in defaults:
        settings.setdefault("eps", threat.eps)
        if "eps_step" in defaults:
            settings.setdefault("eps_step", settings["eps"] * defaults["eps_step"] / defaults["eps"])
    return settings


def _field(parameter: Parameter) -> tuple[Any, Any]:
    kinds = {"int": int, "float": Fraction, "bool": bool, "str": str}
    default = parameter.default
    kind = Fraction if parameter.name in ("eps", "eps_step") else kinds.get(parameter.annotation, Any)
    if isinstance(default, tuple):
        kind = tuple
    meaning = parameter.meaning or "See ART's documentation."
    if parameter.name in ("eps", "norm", "eps_step") and not isinstance(default, str):
        default, meaning = None, f"{meaning} By default, from the threat model."
    elif default is REQUIRED:
        return kind, Field(description=meaning)
    elif default is UNKNOWN:
        default = None
    return kind if default is not None else kind | None, Field(default, description=meaning)


@cache
def _class(name: str) -> type[ArtAttack]:
    info = art_index.attacks()[name]
    fields: Any = {
        parameter.name: _field(parameter)
        for parameter in info.parameters
        if parameter.name not in _SET_BY_ADVKIT
    }
    config = create_model(name, __base__=StrictModel, __module__=__name__, **fields)
    norms: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")
    if name in _LINF:
        norms = ("linf",)
    elif "norm" in fields:
        norms = ("linf", "l2", "l1")
    named = {"__doc__": "", "Config": config, "norms": norms, "info": info}
    if name in art_index.SLOW:
        named["cost"] = "unknown; slow"
    return type(f"art:{name}", (ArtAttack,), named)


@ATTACKS.family("art")
def entry(name: str) -> Entry[type[Attack[Any]]]:
    """The attack of ART's class ``name``.

    Raises:
        ConfigError: there is none, or it does not attack image classifiers.
    """
    known = art_index.attacks()
    info = known.get(name)
    if info is None:
        near = did_you_mean(name, known)
        raise ConfigError(f"ART has no attack called {name!r}{near}; `advkit ls art-attacks` lists them")
    if info.unsupported:
        raise ConfigError(f"art:{name} cannot attack image classifiers: {info.unsupported}; choose another")
    return Entry(f"art:{name}", _class(name), info.summary, info.source)


def entries() -> Iterator[Entry[type[Attack[Any]]]]:
    """Every attack of ART that can attack an image classifier."""
    return map(entry, art_index.supported())
