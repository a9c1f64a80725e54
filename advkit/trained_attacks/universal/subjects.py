"""Converts the classifiers, images and target of Python callers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from advkit.core.errors import ConfigError, DataError, did_you_mean
from advkit.data.data import Data
from advkit.data.load import as_data, load_data
from advkit.models.inspect import inspect_classifier
from advkit.models.load import wrap
from advkit.models.model import Model, evaluation_mode

Modules = nn.Module | Sequence[nn.Module]
"""One classifier, or several."""


def both_splits(
    data: Data | str | tuple[object, object], test: Data | tuple[object, object] | None
) -> list[Data]:
    """[training images, test images].

    Raises:
        DataError: test images are missing.
    """
    if isinstance(data, str):
        return [load_data(data, "train"), load_data(data, "test") if test is None else as_data(test)]
    if test is None:
        raise DataError("test images are missing; give test=..., or name a data set")
    return [as_data(data), as_data(test)]


def classifiers(models: Modules, data: Data) -> list[Model]:
    """Modules as checked `Model` objects.

    Raises:
        ModelError: a module that is not a classifier.
    """
    found = []
    for module in listed(models):
        model = wrap(module, shape=data.shape)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        few, _ = data.batch(torch.arange(min(8, len(data))), device)
        inspect_classifier(model, few, data.classes if data.classes_known else None)
        found.append(model)
    return found


def listed(models: Modules) -> list[nn.Module]:
    """One or several as a list."""
    return [models] if isinstance(models, nn.Module) else list(models)


def class_number(target: int | str, data: Data) -> int:
    """The number of a class, given its name or, where no class has that name, its number.

    Raises:
        ConfigError: there is no such class.
    """
    names = list(data.class_names)
    if str(target) in names:
        return names.index(str(target))
    if str(target).isdecimal() and int(target) < data.classes:
        return int(target)
    raise ConfigError(
        f"there is no class {target!r} in {data.name}{did_you_mean(str(target), names)}; name one of "
        f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}, or a number below {data.classes}"
    )


@contextmanager
def all_in_evaluation_mode(models: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode for every model inside; restores their modes afterwards."""
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluation_mode(model))
        yield
