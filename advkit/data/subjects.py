"""The classifiers that a command is given, and the images that go with them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

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


def open_subjects(
    names: Sequence[str],
    data: str | None,
    splits: Sequence[Split],
    *,
    arch: str | None,
    said: ForeignModel,
    context: Context,
    only_decisions: bool = False,
) -> tuple[list[Model], list[Data]]:
    """Classifiers that were looked at, and splits of one data set.

    Args:
        names: of the classifiers, as `load_model` takes them.
        data: a data set's name; None: what the first classifier was trained on.
        splits: which parts of it.
        arch: for weights without a card, their architecture.
        said: what is said of models that advkit did not write.
        context: where to work.
        only_decisions: as `inspect_classifier` takes it.

    Raises:
        UserError: whatever is wrong with a model or the data.
    """
    found = [load_data(data, split, root=context.data_dir) for split in splits] if data else []
    models: list[Model] = []
    for name in names:
        model = load_model(
            name,
            role="classifier",
            arch=arch,
            classes=found[0].classes if found and found[0].classes_known else None,
            **said.said | {"shape": said.shape or (found[0].shape if found else None)},
            device=context.device,
        )
        found = found or _trained_on(name, model, splits, context)
        few, _ = found[0].batch(torch.arange(min(8, len(found[0]))), next(model.parameters()).device)
        classes = found[0].classes if found[0].classes_known else None
        for note in inspect_classifier(model, few, classes, only_decisions=only_decisions).notes:
            context.progress.say(f"{name}: {note}")
        models.append(model)
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


def flags(names: Sequence[str], data: str, *, arch: str | None, said: ForeignModel) -> str:
    """The same as one would type it, for the commands that come next."""
    given = {"model": ",".join(names), "data": data, "arch": arch, **said.said}
    usual = ForeignModel().said
    words = []
    for name, value in given.items():
        if value not in (None, "") and value != usual.get(name):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else value
            words.append(f"--{name.replace('_', '-')}={shlex.quote(text)}")
    return " ".join(words)


def _trained_on(name: str, model: Model, splits: Sequence[Split], context: Context) -> list[Data]:
    """What its card says."""
    data = learned(name, model.card)
    context.progress.say(f"data: {data}, what {name} was trained on")
    return [load_data(data, split, root=context.data_dir) for split in splits]
