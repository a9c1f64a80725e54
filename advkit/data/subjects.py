"""Classifiers that were inspected, and the images that go with them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.runs import environment
from advkit.data.data import Data
from advkit.data.dataset import Split
from advkit.data.load import as_data, load_data
from advkit.models.card import ModelCard
from advkit.models.foreign_settings import ForeignModel, SubjectSettings
from advkit.models.inspect import ModelFacts, inspect_classifier
from advkit.models.load import as_classifier, load_model
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


@dataclass(frozen=True, eq=False)
class Subject:
    """A classifier that was inspected, and the images that it is evaluated on."""

    model: Model
    images: Data
    few: torch.Tensor
    """A few images, on the model's device."""
    whole: bool
    """Whether these are all images of the split."""
    facts: ModelFacts
    begun: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(
        cls,
        model: nn.Module | str | Path,
        data: Data | str | tuple[Any, Any],
        n: int | None = None,
        *,
        skip: int = 1,
        allow_random: bool = False,
        only_decisions: bool = False,
    ) -> Subject:
        """The first ``n`` of every ``skip``-th image, with their ids; the rest as for `inspect_classifier`.

        Raises:
            ModelError: the model does not behave as a classifier.
            DataError: the images or labels do not fit.
        """
        split = as_data(data)
        images = (split if skip == 1 else split.take(torch.arange(0, len(split), skip))).limit(n)
        found = as_classifier(model, images.shape)
        tensor = next(iter([*found.parameters(), *found.buffers()]), torch.empty(0))
        few, _ = images.batch(torch.arange(min(8, len(images))), tensor.device)
        classes = images.classes if images.classes_known else None
        facts = inspect_classifier(
            found, few, classes, allow_random=allow_random, only_decisions=only_decisions
        )
        return cls(found, images, few, len(images) == len(split), facts)

    @classmethod
    def open(cls, config: SubjectSettings, context: Context, **how: Any) -> Subject:
        """What a command is given; ``how`` as in `of`."""
        (model,), (data,) = open_subjects(config, context, config.split, inspect=False)
        subject = cls.of(model, data, config.n, **how)
        for note in subject.facts.notes:
            context.progress.say(f"{config.model}: {note}")
        return subject

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Hashes of the model and the images, computed once."""
        return {"model": self.model.hash, "images": self.images.fingerprint}

    def about(self) -> dict[str, Any]:
        """What every result says of it."""
        return {
            "status": "complete" if self.whole else "partial",
            "model_hash": self.inputs["model"],
            "card": self.model.card,
            "data": self.images.facts,
            "notes": self.facts.notes,
            "seconds": time.perf_counter() - self.begun,
            "environment": environment(),
        }


def open_subjects(
    config: _Subject,
    context: Context,
    *splits: Split,
    transfer: Sequence[str] = (),
    inspect: bool = True,
) -> tuple[list[Model], list[Data]]:
    """The classifiers and the images that a command is given.

    Args:
        config: names them; without a data set it is what the first classifier was trained on.
        context: where to work.
        splits: parts of the data set.
        transfer: further classifiers.
        inspect: look at the classifiers, and say what was noticed.

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
            for note in Subject.of(model, found[0]).facts.notes:
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
