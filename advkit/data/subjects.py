"""The classifiers that a command is given, and the images that go with them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.data.data import Data
from advkit.data.dataset import Split
from advkit.data.load import load_data
from advkit.models.card import ModelCard
from advkit.models.foreign_settings import ForeignModel
from advkit.models.inspect import inspect_classifier
from advkit.models.load import load_model
from advkit.models.model import Model


class _Attacked(Protocol):
    """Settings that name classifiers."""

    @property
    def model(self) -> str | tuple[str, ...]: ...
    @property
    def arch(self) -> str | None: ...
    @property
    def shape(self) -> tuple[int, int, int] | None: ...
    @property
    def said(self) -> dict[str, Any]: ...


class _Subject(_Attacked, Protocol):
    """Settings that also name data."""

    @property
    def data(self) -> str | None: ...


def open_subjects(
    config: _Subject,
    context: Context,
    *splits: Split,
    transfer: Sequence[str] = (),
    inspect: bool = True,
    only_decisions: bool = False,
) -> tuple[list[Model], list[Data]]:
    """The classifiers and the images that a command is given.

    Args:
        config: names them; without a data set it is what the first classifier was trained on.
        context: where to work.
        splits: parts of the data set.
        transfer: further classifiers.
        inspect: look at the classifiers, and say what was noticed.
        only_decisions: as `inspect_classifier` takes it.

    Raises:
        UserError: whatever is wrong with a model or the data.
    """
    data = config.data
    found = [load_data(data, split, root=context.data_dir) for split in splits] if data else []
    models: list[Model] = []
    for name in (*_names(config.model), *transfer):
        model = load_model(
            name,
            role="classifier",
            arch=config.arch,
            classes=found[0].classes if found and found[0].classes_known else None,
            **config.said | {"shape": config.shape or (found[0].shape if found else None)},
            device=context.device,
        )
        models.append(model)
        if not found:
            data = learned(name, model.card)
            context.progress.say(f"data: {data}, what {name} was trained on")
            found = [load_data(data, split, root=context.data_dir) for split in splits]
        if inspect:
            few, _ = found[0].batch(torch.arange(min(8, len(found[0]))), next(model.parameters()).device)
            classes = found[0].classes if found[0].classes_known else None
            for note in inspect_classifier(model, few, classes, only_decisions=only_decisions).notes:
                context.progress.say(f"{name}: {note}")
    return models, found


def learned(name: str, card: ModelCard) -> str:
    """The data set that the model called ``name`` was trained on.

    Raises:
        ConfigError: its card does not say.
    """
    if card.data is None:
        raise ConfigError(
            f"the card of {name} does not say what it was trained on; name the data with --data"
        )
    return card.data.name


def flags(config: _Attacked, data: str | None) -> str:
    """The same as one would type it, for the commands that come next."""
    given = {"model": config.model, "data": data, "arch": config.arch, **config.said}
    usual = ForeignModel().said
    words = []
    for name, value in given.items():
        if value not in (None, "") and value != usual.get(name):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else value
            words.append(f"--{name.replace('_', '-')}={shlex.quote(text)}")
    return " ".join(words)


def _names(model: str | tuple[str, ...]) -> tuple[str, ...]:
    return (model,) if isinstance(model, str) else model
