"""Which output of a model belongs to which class of the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from advkit.core import files
from advkit.core.errors import ConfigError, DataError, listed
from advkit.core.notes import Note
from advkit.data.data import Data

_SYNSET = re.compile(r"n\d{8}")


def class_name(label: int, names: Sequence[str]) -> str:
    """Of a class; its number where it has no name."""
    return names[label] if label < len(names) else str(label)


def said_classes(said: str | None) -> tuple[tuple[str, ...], int | None]:
    """(names, number) of a model's classes, of a file as for `read_classes` or of a number; empty for None.

    Raises:
        ConfigError: no such file, no names, or fewer than two classes.
    """
    if said is None:
        return (), None
    if not said.isdecimal() or Path(said).exists():
        names = read_classes(Path(said))
        return names, len(names)
    if int(said) < 2:
        raise ConfigError(f"--classes {said} is too few for a classifier; say 2 or more, or name a file")
    return (), int(said)


def read_classes(path: Path) -> tuple[str, ...]:
    """Names of a model's classes, in the order of its outputs.

    A text file has a name in each line. A JSON file has a list, a dictionary from numbers to names (or to
    lists of names, as ``imagenet_class_index.json`` has), or one from names to numbers (``class_to_idx``).

    Raises:
        ConfigError: no such file, or no names.
    """
    try:
        text = files.read(path).decode("utf-8-sig")
        if path.suffix.lower() != ".json":
            names = [line.strip() for line in text.splitlines() if line.strip()]
        else:
            names = _in_order(files.parsed(text))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no file of class names; write one name in each line, in the order of the outputs, or "
            "give their number alone"
        ) from error
    if not names:
        raise ConfigError(f"{path} has no class names; write one in each line, in the order of the outputs")
    return tuple(names)


def _in_order(content: Any) -> list[str]:
    if isinstance(content, dict):
        if all(isinstance(number, int) for number in content.values()):
            content = {number: name for name, number in content.items()}
        numbered = {int(number): name for number, name in content.items()}
        content = [numbered[number] for number in range(len(numbered))]
    return [", ".join(map(str, name)) if isinstance(name, list) else str(name) for name in content]


def match_classes(data: Data, labels: Sequence[str], classes: int | None = None) -> Data:
    """The data with the numbers that a model gives to its classes.

    Names agree if they are equal but for case, punctuation and a number in front; a model's class may have
    several names, divided by commas, and ImageNet's synsets (``n01440764``) are known. If every class of the
    data is one of the model's, its images get that number: the data may have the classes in another order, or
    only some of them. If no name agrees, the numbers are kept where there are as many classes.

    Args:
        data: with class names; without any it is returned as it is.
        labels: names of the model's classes in the order of its outputs; empty where they are unknown.
        classes: how many it has, where that is known.

    Raises:
        DataError: some names agree and others do not, or there are other numbers of classes.
    """
    names = data.class_names
    if not data.classes_known or tuple(labels) == names:
        return data
    if (classes or len(labels)) == 1000 and all(_SYNSET.fullmatch(name) for name in names):
        labels = resources.files(__package__).joinpath("imagenet-synsets.txt").read_text("utf-8").split()
    if not labels:
        if classes is not None and len(names) < classes:
            raise DataError(
                f"data {data.name!r} has {len(names)} classes but the model has {classes} without names; "
                "name them, in the order of its outputs, with --classes FILE"
            )
        return data
    found = _places(names, labels)
    missing = [name for name, place in zip(names, found, strict=True) if place is None]
    if not missing:
        return _renumbered(data, labels, torch.tensor(found))
    few, theirs = listed(missing), listed(labels)
    kept = all(place in (None, number) for number, place in enumerate(found))
    if len(names) != len(labels) or (len(missing) < len(names) and not kept):
        raise DataError(
            f"classes of data {data.name!r} are not among the model's {len(labels)} ({theirs}): {few}; "
            "rename the folders, or name the model's classes with --classes FILE"
        )
    if any(name != str(number) for number, name in enumerate(labels)):  # else it has no names but numbers
        said = f"the model has other names for the classes {few} ({theirs}); they were taken in this order"
        return data.noting(Note("class-names-differ", said))
    return data


def widened(data: Data, labels: Sequence[str], classes: int | None) -> Data:
    """The data with all classes of a model, where their own are only counted by the labels that occur."""
    if data.classes_known or (classes or 0) <= data.classes:
        return data
    return replace(data, class_names=tuple(labels) or tuple(map(str, range(classes or 0))))


def renumbered(asked: torch.Tensor, labels: Sequence[str], data: Data) -> torch.Tensor | None:
    """Classes (N,) of a model with these names in the numbers of the data; None where the data lack one.

    Without names on both sides the numbers are taken as they are.
    """
    if not labels or not data.classes_known:
        return asked if int(asked.max()) < data.classes else None
    found = _places(labels, data.class_names)
    if None in found:
        return None
    return torch.tensor(found)[asked]


def _places(names: Sequence[str], labels: Sequence[str]) -> list[int | None]:
    """The model's number of each class, where exactly one has that name."""
    exact = {name: number for number, name in enumerate(labels) if labels.count(name) == 1}
    loose = [{_plain(part) for part in _parts(label)} for label in labels]
    counts = Counter(part for parts in loose for part in parts)
    places = {part: number for number, parts in enumerate(loose) for part in parts if counts[part] == 1}
    found = [exact.get(name, places.get(_plain(name))) for name in names]
    twice = {number for number, times in Counter(found).items() if times > 1}
    return [None if number in twice else number for number in found]


def _parts(label: str) -> list[str]:
    """All names of one class: ``n01440764 tench, Tinca tinca`` has three and the whole."""
    synset = _SYNSET.match(label)
    rest = label[synset.end() :] if synset else label
    return [label, *([synset[0]] if synset else []), *rest.split(",")]


def _plain(name: str) -> str:
    plain = re.sub(r"[\W_]+", " ", name.strip().lower()).strip()
    return re.sub(r"^\d+ (?=.)", "", plain)


def _renumbered(data: Data, labels: Sequence[str], places: torch.Tensor) -> Data:
    notes = []
    ordered = torch.equal(places, torch.arange(len(labels)))
    if not ordered:
        part = (
            f"{len(places)} of the model's {len(labels)} classes"
            if len(places) < len(labels)
            else "the classes"
        )
        beyond = "; another one as the answer counts as misclassified" if len(places) < len(labels) else ""
        notes.append(Note("classes-by-name", f"{part} were found by their names{beyond}"))
    matched = replace(data, labels=places[data.labels], class_names=tuple(labels))
    return matched.noting(*notes)
