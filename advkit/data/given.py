"""Data sets of other libraries in Python: PyTorch's, and what looks like them, such as Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, SubsetRandomSampler

from advkit.core.errors import DataError, UserError, by_size, listed
from advkit.core.notes import Note
from advkit.data.arrays import from_arrays
from advkit.data.data import Data
from advkit.data.image_files import GREY, pixels
from advkit.data.npz import IMAGES, LABELS


def is_dataset(given: Any) -> bool:
    """Whether it gives images and labels one by one or in batches."""
    if isinstance(given, list):
        return bool(given) and all(isinstance(item, tuple | Mapping) for item in given)
    if isinstance(given, Tensor | np.ndarray | str | bytes | Mapping | tuple):
        return False
    return hasattr(given, "__iter__") or _has_rows(given)


def _has_rows(given: Any) -> bool:
    """Whether its items can be had by number."""
    return hasattr(given, "__getitem__") and hasattr(given, "__len__")


def from_dataset(given: Any, name: str) -> Data:
    """`Data` of a data set or a loader, in the order of the data set, read into memory.

    An item is a pair (image, label) or a dictionary, and an image is a PIL image, a tensor or an array.

    Raises:
        DataError: no images and labels, or whatever `advkit.data.arrays.from_arrays` finds wrong.
    """
    notes: list[Note] = []
    batched = isinstance(given, DataLoader) and given.batch_sampler is not None
    source: Any = given.dataset if isinstance(given, DataLoader) else given
    try:
        pairs = [_pair(item, name) for item in _items(given, notes)]
        labels = [torch.as_tensor(label) for _, label in pairs]
        if _has_rows(source) and any(_changes(source, row, name) for row in range(min(4, len(source)))):
            said = "images differ from reading to reading (random transforms?); each was read once"
            notes.append(Note("random-images", said))
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code
        raise DataError(
            f"{name!r} failed while it was read ({type(error).__name__}: {error}); fix that data set"
        ) from error
    if not pairs:
        raise DataError(f"{name!r} has no images; give a set with at least one")
    modes = {image.mode for image, _ in pairs if isinstance(image, Image.Image)}
    grey = all(mode in GREY or mode.startswith("I") for mode in modes)
    images = [_image(image, 1 if grey else 3) for image, _ in pairs]
    sizes = {tuple(image.shape[1:] if batched else image.shape) for image in images}
    if len(sizes) > 1:
        few = listed(map(by_size, sorted(sizes)))
        raise DataError(f"images of {name!r} differ in size ({few}); bring them to one, as with a transform")
    join = torch.cat if batched else torch.stack
    return from_arrays(
        join(images),
        join(labels),
        name=name,
        split="all",
        class_names=_class_names(source),
        notes=notes,
    )


def _items(given: Any, notes: list[Note]) -> Iterator[Any]:
    """Items or batches, in the order of the data set where a loader would only shuffle it."""
    if isinstance(given, DataLoader):
        if (rows := _rows(given, notes)) is None:
            yield from given
            return
        size = given.batch_size
        for batch in torch.as_tensor(rows).split(size or 1):
            items = [given.dataset[row] for row in batch.tolist()]
            yield given.collate_fn(items if size else items[0])
    elif _has_rows(given):
        for row in range(len(given)):
            yield given[row]
    else:
        yield from given


def _rows(loader: DataLoader[Any], notes: list[Note]) -> Sequence[int] | None:
    """The rows of the data set that a loader goes through, in their order; None if it alone can say."""
    given = loader.batch_size is None and loader.batch_sampler is not None
    order = loader.batch_sampler if given else loader.sampler
    count = len(loader.dataset) if hasattr(loader.dataset, "__len__") else 0
    rows: Sequence[int] | None = range(count) if type(order) is SequentialSampler else None
    if isinstance(order, RandomSampler) and not order.replacement:
        rows = range(count)
    if isinstance(order, SubsetRandomSampler):
        rows = order.indices
    if rows is not None and type(order) is not SequentialSampler:
        said = "the loader shuffles; its data set was read in order, every image once"
        notes.append(Note("order-of-dataset", said))
    if rows is None and _draws(order):
        said = "the loader's sampler draws other images each time, perhaps several times the same; those of "
        notes.append(Note("random-rows", f"{said}one draw were taken"))
    return rows


def _draws(order: Any) -> bool:
    """Whether a sampler gives other rows when it is asked again."""
    if not hasattr(order, "__len__"):
        return False
    one, other = (list(islice(order, len(order))) for _ in range(2))
    return one != other


def _pair(item: Any, name: str) -> tuple[Any, Any]:
    """(image, label) of an item or a batch."""
    if isinstance(item, Mapping):
        keys = {str(key).lower(): key for key in reversed(list(item))}
        image, label = (next((keys[key] for key in some if key in keys), None) for some in (IMAGES, LABELS))
        if image is None or label is None:
            raise DataError(
                f"items of {name!r} have the keys {', '.join(map(str, item))}; call them image and label"
            )
        return item[image], item[label]
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    raise DataError(
        f"items of {name!r} are {type(item).__name__}; give pairs (image, label), or a dictionary"
    )


def _image(image: Any, channels: int) -> Tensor:
    if isinstance(image, Image.Image):
        return pixels(image, channels)
    return torch.as_tensor(np.asarray(image) if not isinstance(image, Tensor) else image)


def _changes(given: Any, row: int, name: str) -> bool:
    """Whether an item's image is another one when it is read again."""
    one, other = (_image(_pair(given[row], name)[0], 3) for _ in range(2))
    return one.shape != other.shape or not bool((one == other).all())


def _class_names(given: Any) -> list[str] | None:
    """Those that torchvision's and Hugging Face's data sets know, also of a subset."""
    features: Iterable[Any] = getattr(given, "features", None) or {}
    if isinstance(features, Mapping):
        names = next((features[key].names for key in LABELS if hasattr(features.get(key), "names")), None)
        if names:
            return [str(name) for name in names]
    classes = getattr(given, "classes", None)
    if isinstance(classes, list | tuple):
        return [str(name) for name in classes]
    inner = getattr(given, "dataset", None)
    return None if inner is None or inner is given else _class_names(inner)
