"""advkit: train GANs, attack classifiers, harden them, and report numbers one can trust.

Each command is a function, too: ``advkit adv-train --eps 0.1`` is ``advkit.adv_train(eps=0.1)``. The public
names are imported when first used, so ``import advkit`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_PUBLIC = {
    "BlackBox": "advkit.models.black_box",
    "Threat": "advkit.core.threat",
    "UserError": "advkit.core.errors",
    "certify": "advkit.verify.certification.certify",
    "compare": "advkit.evaluation.comparison.compare",
    "evaluate": "advkit.evaluation.evaluate",
    "from_art": "advkit.integrations.art_models",
    "list_architectures": "advkit.listings",
    "list_attacks": "advkit.listings",
    "list_datasets": "advkit.listings",
    "load_data": "advkit.data.load",
    "load_model": "advkit.models.load",
    "perturb": "advkit.attacks.perturb",
    "runs": "advkit.core.run_list",
    "save_model": "advkit.models.checkpoint",
    "security_curve": "advkit.evaluation.curve.measure",
    "smooth": "advkit.verify.smoothing.classifier",
    "to_art": "advkit.integrations.art_models",
    "train_patch": "advkit.trained_attacks.universal.make",
    "train_universal": "advkit.trained_attacks.universal.make",
}

_ALIASES = {"attack": "evaluate", "curve": "security_curve", "train_detector": "detector_train"}
"""Functions with a second name: the command's, or the one that reads better."""

_MOVED = {"images": "advkit.core.images"}
"""Modules of 0.1 that scripts import from here."""

__all__ = [
    "BlackBox",
    "Threat",
    "UserError",
    "__version__",
    "certify",
    "compare",
    "evaluate",
    "from_art",
    "list_architectures",
    "list_attacks",
    "list_datasets",
    "load_data",
    "load_model",
    "perturb",
    "runs",
    "save_model",
    "security_curve",
    "smooth",
    "to_art",
    "train_patch",
    "train_universal",
]

if TYPE_CHECKING:
    from advkit.attacks.perturb import perturb
    from advkit.core.errors import UserError
    from advkit.core.run_list import runs
    from advkit.core.threat import Threat
    from advkit.data.load import load_data
    from advkit.evaluation.comparison.compare import compare
    from advkit.evaluation.curve.measure import security_curve
    from advkit.evaluation.evaluate import evaluate
    from advkit.integrations.art_models import from_art, to_art
    from advkit.listings import list_architectures, list_attacks, list_datasets
    from advkit.models.black_box import BlackBox
    from advkit.models.checkpoint import save_model
    from advkit.models.load import load_model
    from advkit.trained_attacks.universal.make import train_patch, train_universal
    from advkit.verify.certification.certify import certify
    from advkit.verify.smoothing.classifier import smooth


def __getattr__(name: str) -> Any:
    if name in _ALIASES:
        return __getattr__(_ALIASES[name])
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MOVED:
        return importlib.import_module(_MOVED[name])
    if name in _commands():
        return importlib.import_module("advkit.functions").function(name)
    raise AttributeError(f"module 'advkit' has no attribute {name!r}")


def _commands() -> list[str]:
    commands = importlib.import_module("advkit.commands").COMMANDS
    names = (name for command in commands.values() for name in (command.name, *command.formerly))
    return [name.replace("-", "_") for name in names]


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_ALIASES, *_commands()})
