"""The attacks of the Adversarial Robustness Toolbox, read from its source since imports take seconds."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from advkit.core.errors import ConfigError

PACKAGE = "art.attacks.evasion"
REQUIRED, UNKNOWN = object(), object()
"""A parameter without a default, and one whose default is not a literal."""

_PROVIDED = {
    "BaseEstimator",
    "ClassifierMixin",
    "NeuralNetworkMixin",
    "LossGradientsMixin",
    "ClassGradientsMixin",
}
"""Estimator classes that an attack may require."""

_UNSUPPORTED = {
    "AdversarialTexturePyTorch": "it is for videos",
    "CompositeAdversarialAttackPyTorch": "it searches hues and rotations, which no norm bounds",
    "FeatureAdversariesNumpy": "it needs a guide image",
    "FeatureAdversariesPyTorch": "it needs a guide image",
    "FrameSaliencyAttack": "it is for videos",
    "GRAPHITEBlackbox": "it needs a mask and an image of the target",
    "GRAPHITEWhiteboxPyTorch": "it needs a mask and an image of the target",
    "LaserAttack": "it needs a generator of laser beams, which parameters cannot specify",
    "LowProFool": "it is for tabular data and needs feature weights",
    "MalwareGDTensorFlow": "it is for malware",
    "OverTheAirFlickeringPyTorch": "it is for videos",
    "OverloadPyTorch": "it is for object detectors",
    "SNAL": "it is for object detectors",
    "TargetedUniversalPerturbation": "it makes one universal perturbation for many images",
    "UniversalPerturbation": "it makes one universal perturbation for many images",
}


_MODULES = {
    "AutoAttack": "multiprocess",
    "BrendelBethgeAttack": "numba",
    "PixelAttack": "cma",
    "ThresholdAttack": "cma",
}
"""Modules that ART imports in an attack and does not install; the extra ``art`` of advkit has them."""

SLOW = (
    "AutoAttack",
    "BrendelBethgeAttack",
    "CarliniL0Method",
    "ElasticNet",
    "ShadowAttack",
    "SignOPTAttack",
    "ThresholdAttack",
)
"""Attacks that can take more than a minute for ten images of 8x8."""

_NOTES = {
    **dict.fromkeys(SLOW, "slow: can take many seconds for each image"),
    "Wasserstein": "its default regularization overflows; set 300 or less",
}


@dataclass(frozen=True)
class Parameter:
    """One argument of an attack's constructor."""

    name: str
    default: Any
    """A literal, `REQUIRED`, or `UNKNOWN`."""
    annotation: str
    meaning: str


@dataclass(frozen=True)
class AttackInfo:
    """One attack as its source describes it."""

    name: str
    module: str
    summary: str
    source: str
    """The paper, if linked."""
    parameters: tuple[Parameter, ...]
    """All except the estimator, which comes first."""
    unsupported: str
    """Why it cannot attack single images of an image classifier; empty where it can."""


@cache
def attacks() -> dict[str, AttackInfo]:
    """All evasion attacks, by the names of their classes.

    Raises:
        ConfigError: the toolbox is not installed.
    """
    return {name: _attack_info(name) for name in _exported()}


def supported() -> list[str]:
    """Names of the attacks on single images of image classifiers.

    Raises:
        ConfigError: the toolbox is not installed.
    """
    return [name for name in _exported() if not _unsupported(name)]


def cannot_run(name: str) -> str:
    """Why a supported attack fails here, whatever its parameters; empty if it does not."""
    module = _MODULES.get(name)
    if module is not None and util.find_spec(module) is None:
        return f"it needs the module {module!r}; run: pip install {module} (the extra advkit[art] has it)"
    if name == "GeoDA" and int(metadata.version("numpy").partition(".")[0]) >= 2:
        return "ART calls np.mat, which NumPy 2 does not have"
    return ""


def note(name: str) -> str:
    """What one should know before running it here."""
    fault = cannot_run(name)
    return f"cannot run here: {fault}" if fault else _NOTES.get(name, "")


def _read(module: str) -> str:
    found = util.find_spec("art")
    if found is None or found.origin is None:
        raise ConfigError(
            "art: attacks are those of the Adversarial Robustness Toolbox, which is not installed; "
            "run: pip install adversarial-robustness-toolbox"
        )
    path = Path(found.origin).parents[1].joinpath(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")


@cache
def _modules() -> dict[str, str]:
    """The module of each class, also of attacks whose own requirements are missing."""
    imports = (node for node in ast.walk(ast.parse(_read(PACKAGE))) if isinstance(node, ast.ImportFrom))
    return {alias.name: node.module for node in imports if node.module for alias in node.names}


@cache
def _sources() -> dict[str, str]:
    """The text of each class. Most of it is never parsed, which takes seconds."""
    files = map(_read, dict.fromkeys(_modules().values()))
    parts = (part for file in files for part in re.split(r"^(?=class )", file, flags=re.MULTILINE)[1:])
    return {re.split(r"\W", part, maxsplit=2)[1]: part for part in parts}


def _exported() -> list[str]:
    return sorted(name for name in _modules() if name in _sources())


def _lineage(name: str) -> Iterator[str]:
    """The texts of a class and of its base classes that are attacks."""
    text = _sources().get(name)
    if text is not None:
        yield text
        for base in re.findall(r"\w+", text.partition(":")[0])[2:]:
            yield from _lineage(base)


def _attack_info(name: str) -> AttackInfo:
    lineage = [node for text in _lineage(name) if isinstance(node := ast.parse(text).body[0], ast.ClassDef)]
    docstring = ast.get_docstring(lineage[0]) or name
    paper = re.search(r"arxiv\.org/\w+/([\d.]+\d)", docstring)
    return AttackInfo(
        name,
        _modules()[name],
        summary=_first_sentence(docstring),
        source=f"arXiv:{paper.group(1)}" if paper else "",
        parameters=_parameters(lineage),
        unsupported=_unsupported(name),
    )


def _first_sentence(docstring: str) -> str:
    paragraph = re.split(r"\s*\|?\s*Paper link", " ".join(docstring.split("\n\n")[0].split()))[0]
    sentence = re.split(r"(?<!\bal)\.(?:\s|$)", paragraph)[0]  # not after "et al."
    summary = re.sub(
        r"^(Implementation of|Implements|This class implements)\s+|[`']|\s?\[#\w+\]_", "", sentence
    )
    return textwrap.shorten(summary, 120, placeholder=" ...")


def _unsupported(name: str) -> str:
    if name in _UNSUPPORTED:
        return _UNSUPPORTED[name]
    required = _first(r"^    _estimator_requirements = (\([^)]*\))", name)
    other = sorted(set(re.findall(r"\w+", required)) - _PROVIDED)
    if other:
        return f"it is for another kind of model ({', '.join(other)})"
    if "TensorFlow" in name:
        return "it is for TensorFlow"
    if "tuple" in _first(r"^    def generate\([^)]*\) -> (.*):$", name):
        return "it makes a patch, not images"
    return ""


def _first(pattern: str, name: str) -> str:
    """What the pattern finds first in a class and its base classes."""
    found = (re.search(pattern, text, re.MULTILINE) for text in _lineage(name))
    return next((match[1] for match in found if match), "")


def _method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((line for line in node.body if isinstance(line, ast.FunctionDef) and line.name == name), None)


def _parameters(lineage: list[ast.ClassDef]) -> tuple[Parameter, ...]:
    made = next((method for node in lineage if (method := _method(node, "__init__"))), None)
    if made is None:
        return ()
    docstring = " ".join((ast.get_docstring(made) or "").split())
    meanings = dict(re.findall(r":param (\w+): (.*?)(?= :\w+|$)", docstring))
    arguments = made.args.args[2:]  # without self and the estimator
    missing = len(arguments) - len(made.args.defaults)
    defaults = [None] * missing + list(made.args.defaults)
    return tuple(
        Parameter(
            argument.arg,
            _value(default),
            ast.unparse(argument.annotation) if argument.annotation else "",
            meanings.get(argument.arg, ""),
        )
        for argument, default in zip(arguments, defaults[-len(arguments) :], strict=True)
    )


def _value(default: ast.expr | None) -> Any:
    if default is None:
        return REQUIRED
    try:
        return ast.literal_eval(default)
    except ValueError:
        return UNKNOWN
