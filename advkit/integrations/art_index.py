"""The attacks of the Adversarial Robustness Toolbox, read from its source since imports take seconds."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import util
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
    found = util.find_spec("art")
    if found is None or found.origin is None:
        raise ConfigError(
            "art: attacks are those of the Adversarial Robustness Toolbox, which is not installed; "
            "run: pip install adversarial-robustness-toolbox"
        )
    folder = Path(found.origin).parents[1]
    exported = dict(_exported(folder))
    classes = {
        name: (module, node)
        for module in dict.fromkeys(exported.values())
        for name, node in _classes(_parsed(folder, module))
    }
    known = {name: node for name, (_, node) in classes.items()}
    return {name: _attack_info(name, classes[name][0], known) for name in sorted(exported) if name in classes}


def supported() -> list[str]:
    """Names of the attacks on single images of image classifiers.

    Raises:
        ConfigError: the toolbox is not installed.
    """
    return [name for name, info in attacks().items() if not info.unsupported]


def _parsed(folder: Path, module: str) -> ast.Module:
    path = folder.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _exported(folder: Path) -> Iterator[tuple[str, str]]:
    """(class, its module), also of attacks whose own requirements are missing."""
    for node in ast.walk(_parsed(folder, PACKAGE)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.name, node.module) for alias in node.names)


def _classes(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef]]:
    return ((node.name, node) for node in tree.body if isinstance(node, ast.ClassDef))


def _lineage(name: str, known: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """A class and its base classes that are attacks."""
    node = known.get(name)
    if node is not None:
        yield node
        for base in node.bases:
            yield from _lineage(ast.unparse(base), known)


def _attack_info(name: str, module: str, known: dict[str, ast.ClassDef]) -> AttackInfo:
    lineage = list(_lineage(name, known))
    docstring = ast.get_docstring(lineage[0]) or name
    paper = re.search(r"arxiv\.org/\w+/([\d.]+\d)", docstring)
    return AttackInfo(
        name,
        module,
        summary=_first_sentence(docstring),
        source=f"arXiv:{paper.group(1)}" if paper else "",
        parameters=_parameters(lineage),
        unsupported=_unsupported(name, lineage),
    )


def _first_sentence(docstring: str) -> str:
    paragraph = re.split(r"\s*\|?\s*Paper link", " ".join(docstring.split("\n\n")[0].split()))[0]
    sentence = re.split(r"(?<!\bal)\.(?:\s|$)", paragraph)[0]  # not after "et al."
    summary = re.sub(
        r"^(Implementation of|Implements|This class implements)\s+|[`']|\s?\[#\w+\]_", "", sentence
    )
    return textwrap.shorten(summary, 120, placeholder=" ...")


def _unsupported(name: str, lineage: list[ast.ClassDef]) -> str:
    if name in _UNSUPPORTED:
        return _UNSUPPORTED[name]
    required = _assigned(lineage, "_estimator_requirements")
    other = sorted(set(re.findall(r"\w+", ast.unparse(required) if required else "")) - _PROVIDED)
    if other:
        return f"it is for another kind of model ({', '.join(other)})"
    if "TensorFlow" in name:
        return "it is for TensorFlow"
    returned = next((method.returns for node in lineage if (method := _method(node, "generate"))), None)
    if returned is not None and "tuple" in ast.unparse(returned):
        return "it makes a patch, not images"
    return ""


def _assigned(lineage: list[ast.ClassDef], name: str) -> ast.expr | None:
    for node in lineage:
        for line in node.body:
            if isinstance(line, ast.Assign) and any(ast.unparse(target) == name for target in line.targets):
                return line.value
    return None


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
