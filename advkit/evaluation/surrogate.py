"""Surrogates: other classifiers whose gradients attacks use in place of the evaluated one's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from advkit.attacks.attack import Attack
from advkit.attacks.perturb import refuse_other_classes
from advkit.core.errors import ConfigError
from advkit.models.inspect import inspect_classifier
from advkit.models.load import load_model, wrap
from advkit.models.model import Model, evaluation_mode


def open_surrogate(given: nn.Module | str | Path, model: Model, few: Tensor, bpda: Sequence[str]) -> Model:
    """The classifier to search on, on the device of the images ``few``.

    Raises:
        ConfigError: BPDA layers are named, too.
        ModelError: it is no classifier of such images and of the model's classes.
    """
    if bpda:
        raise ConfigError(
            "--bpda has no effect on attacks that search on a surrogate; leave --bpda or --surrogate out"
        )
    shape = (few.shape[1], few.shape[2], few.shape[3])
    if isinstance(given, nn.Module):
        found = wrap(given, shape=shape)
    else:
        found = load_model(given, role="classifier", shape=shape).to(few.device)
    inspect_classifier(found, few, None)
    with evaluation_mode(found), evaluation_mode(model):
        refuse_other_classes(model, found, few)
    return found


def refuse_idle_surrogate(made: Mapping[str, Attack[Any]]) -> None:
    """Raises a ConfigError if no attack would use it, or one queries the model directly."""
    if single := [name for name, each in made.items() if each.single_image]:
        raise ConfigError(
            f"{single[0]} queries the model itself, not a surrogate; leave it or --surrogate out"
        )
    if not any(each.access == "gradients" for each in made.values()):
        raise ConfigError(
            "none of the attacks uses gradients, so none would use the surrogate; name one that does "
            "(--attack pgd), or leave --surrogate out"
        )
