"""Classifiers that were inspected, and the images that go with them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.notes import Note
from advkit.core.runs import environment
from advkit.data.classes import match_classes, said_classes
from advkit.data.data import Data
from advkit.data.dataset import Part
from advkit.data.load import EVALUATED, as_data, load_data, same_classes
from advkit.models.card import ModelCard
from advkit.models.door import named_door
from advkit.models.foreign_settings import BroughtData, ForeignModel, SubjectSettings
from advkit.models.inspect import ModelFacts, inspect_classifier
from advkit.models.load import as_classifier, load_model
from advkit.models.model import Model

CHANCE = 1e-3
"""Largest probability at which images of all classes would have no label above those that occur."""


class _Attacked(Protocol):
    """Settings that name classifiers."""

    @property
    def model(self) -> str | tuple[str, ...]: ...
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
    available: int
    """How many images the split has."""
    facts: ModelFacts
    begun: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(
        cls,
        model: nn.Module | str | Path,
        data: Any,
        n: int | None = None,
        *,
        first: bool = False,
        skip: int = 1,
        classes: int | None = None,
        allow_random: bool = False,
        only_decisions: bool = False,
        evaluated: bool = True,
    ) -> Subject:
        """``n`` of every ``skip``-th image, as `Data.limit` chooses them, with their ids and the numbers that
        the model gives to their classes; ``data`` as for `as_data`, ``classes`` if the data do not say,
        ``evaluated`` if a number comes of them, the rest as for `inspect_classifier`.

        Raises:
            ModelError: the model does not behave as a classifier.
            DataError: the images or labels do not fit.
        """
        split = as_data(data)
        found = as_classifier(model, split.shape, classes)
        if isinstance(data, str):
            split = _unseen(split, found.card, partial(load_data, memory=EVALUATED))
        split = match_classes(split, found.card.labels, found.card.classes)
        images = split if skip == 1 else split.take(torch.arange(0, len(split), skip))
        images = images.limit(n, first=first).noting_darkness()
        learnt = found.card.data
        if evaluated and learnt is not None and (learnt.name, learnt.split) == (images.name, images.split):
            images = images.noting(Note("trained-on", "the model was trained on images of this split"))
        tensor = next(iter([*found.parameters(), *found.buffers()]), torch.empty(0))
        few, _ = images.batch(torch.arange(min(8, len(images))), tensor.device)
        classes = images.classes if images.classes_known else classes
        facts = inspect_classifier(
            found, few, classes, allow_random=allow_random, only_decisions=only_decisions
        )
        outputs = facts.outputs or found.card.classes or 0
        if outputs:
            images.refuse_labels_beyond(outputs)
        by_chance = not outputs or (images.classes / outputs) ** len(split) > CHANCE
        if not images.classes_known and not by_chance:
            how = f"the model has {outputs} outputs, and the labels go up to {images.classes - 1}: an answer "
            how += "beyond them counts as misclassified, also one that means to reject the image"
            facts = replace(facts, notes=(*facts.notes, Note("outputs-beyond-labels", how)))
        return cls(found, images, few, len(split), facts)

    @classmethod
    def open(cls, config: SubjectSettings, context: Context, **how: Any) -> Subject:
        """What a command is given; ``how`` as in `of`."""
        (model,), (data,) = open_subjects(config, context, config.split, inspect=False)
        subject = cls.of(model, data, config.n, first=config.first, **how)
        subject.say(config.model, context)
        return subject

    def limit(self, n: int, *, first: bool = False) -> Subject:
        """The same classifier on ``n`` of the images, as `Data.limit` chooses them."""
        return replace(self, images=self.images.limit(n, first=first))

    def say(self, name: str, context: Context) -> None:
        """Says what was noticed of the model called ``name`` and the images."""
        for note in self.facts.notes:
            context.progress.say(f"{name}: {note}")
        for fact in self.images.notes:
            context.progress.say(f"{self.images.name}: {fact}")

    @cached_property
    def beginning(self) -> dict[str, Any]:
        """What a run begins with, that it may be resumed with the same alone; hashed once."""
        return self.model.beginning() | {"images": self.images.fingerprint}

    @property
    def inputs(self) -> dict[str, str]:
        """Hashes of the model and the images."""
        return {name: self.beginning[name] for name in ("model", "images")}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed of the model and the images, in words."""
        return tuple(map(str, (*self.facts.notes, *self.images.notes)))

    def about(self) -> dict[str, Any]:
        """What every result says of it."""
        return {
            "status": "complete" if len(self.images) == self.available else "partial",
            "model_hash": self.inputs["model"],
            "card": self.model.card,
            "data": self.images.facts,
            "notes": self.notes,
            "seconds": time.perf_counter() - self.begun,
            "environment": environment(),
        }


def open_subjects(
    config: _Subject,
    context: Context,
    *splits: Part | None,
    transfer: Sequence[str] = (),
    inspect: bool = True,
    evaluated: bool = True,
) -> tuple[list[Model], list[Data]]:
    """The classifiers and the images that a command is given.

    Args:
        config: names them; without a data set it is what the first classifier was trained on.
        splits: parts of the data set, as for `load_data`.
        inspect: look at the classifiers, and say what was noticed.
        evaluated: on the last of the splits.

    Raises:
        UserError: whatever is wrong with a model or the data.
    """
    data = config.data
    labels, number = said_classes(_brought(config).classes)

    def load(name: str, split: Part | None) -> Data:
        return load_data(name, split, root=context.data_dir, memory=EVALUATED, **_fit(config, name))

    found = [*same_classes(*(load(data, split) for split in splits))] if data else []
    models: list[Model] = []
    for name in (*_names(config.model), *transfer):
        known = number or (found[0].classes if found and found[0].classes_known else None)
        model = load_model(
            name,
            role="classifier",
            classes=known,
            **config.said | {"shape": config.said["shape"] or (found[0].shape if found else None)},
            device=context.device,
        )
        models.append(model)
        if labels:
            model.card = model.card.model_copy(update={"labels": labels})
        if not found:
            data = learned(name, model.card)
            context.progress.say(f"data: {data}, what {name} was trained on")
            found = [*same_classes(*(load(data, split or "test") for split in splits))]
        elif splits == (None,):
            found = [_unseen(found[0], model.card, load)]
        found = [match_classes(part, model.card.labels, model.card.classes) for part in found]
        if inspect:
            Subject.of(model, found[-1], evaluated=evaluated).say(name, context)
    return models, found


def _unseen(data: Data, card: ModelCard, load: Callable[[str, Part | None], Data]) -> Data:
    """The data; of files that are not divided only the test split, if the model was trained on the rest."""
    learnt = card.data
    if learnt is None or learnt.split != "train" or data.split != "all" or not _are_files(learnt.name):
        return data
    if not _are_files(data.name) or learnt.n >= len(data):
        return data
    train = load(data.name, "train") if learnt.name != data.name else None  # a folder may have been moved
    if train is not None and (len(train) != learnt.n or train.fingerprint != learnt.fingerprint):
        return data
    return load(data.name, "test")


def _are_files(name: str) -> bool:
    return name.startswith(("folder:", "csv:"))


def _fit(config: _Subject, data: str) -> dict[str, Any]:
    """How image files are resized and cropped: as is said, else as the model's own weights want it."""
    said = _brought(config).model_dump(include={"resize", "crop"})
    model = _names(config.model)[0]
    if any(said.values()) or config.said["weights"] or not _are_files(data):
        return said
    way = named_door(model)
    own = way.fit(model) if way is not None else None
    return said if own is None else vars(own)


def _brought(config: _Attacked) -> BroughtData:
    """What is said of image files; of commands that take none, nothing."""
    return config if isinstance(config, BroughtData) else BroughtData()


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
    fit = _brought(config).model_dump(include=set(BroughtData.model_fields))
    given = {"model": config.model, "data": data, **config.said, **fit}
    usual = ForeignModel().said
    words = []
    for name, value in given.items():
        if value not in (None, "") and value != usual.get(name):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={shlex.quote(text)}"))
    return " ".join(words)


def _names(model: str | tuple[str, ...]) -> tuple[str, ...]:
    return (model,) if isinstance(model, str) else model
