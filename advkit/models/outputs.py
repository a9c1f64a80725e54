"""Where the logits are in what a foreign network returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advkit.core.errors import ModelError, listed

Path = tuple[str | int, ...]
_DEPTH = 3


@dataclass(frozen=True)
class Reading:
    """How logits (N, K) are read from what a network returns."""

    path: Path = ()
    """Keys, attributes and positions that lead to the tensor."""
    flat: bool = False
    """It is (N, K, 1, 1)."""
    single: bool = False
    """It is one logit, or one probability, of the second of two classes."""

    def part(self, returned: Any) -> Any:
        """What the path leads to in what was ``returned``."""
        for step in self.path:
            named = isinstance(step, str) and not isinstance(returned, Mapping)
            returned = getattr(returned, str(step)) if named else returned[step]
        return returned

    def __call__(self, returned: Any, *, probabilities: bool) -> Tensor:
        """The logits, or probabilities of the classes."""
        tensor: Tensor = self.part(returned)
        if self.flat:
            tensor = tensor.flatten(1)
        if self.single:
            tensor = tensor.reshape(-1, 1)
            other = 1 - tensor if probabilities else torch.zeros_like(tensor)
            tensor = torch.cat([other, tensor], 1)
        return tensor

    @property
    def sentence(self) -> str:
        """What is said of it; empty if the network returns logits (N, K)."""
        parts = ["".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in self.path)]
        parts[0] = f"its output{parts[0]} is taken" if self.path else ""
        parts.append("its outputs (N, K, 1, 1) are read as (N, K)" if self.flat else "")
        parts.append("its one output is read as that of class 1, against class 0" if self.single else "")
        return "; ".join(part for part in parts if part)


def find(returned: Any, count: int, classes: int | None, name: str, *, probabilities: bool) -> Reading:
    """The one way to read logits for ``count`` images from what a network returned.

    Args:
        classes: how many there are, if that is known.
        name: the class of the network, for the advice; empty if it was read from a file.
        probabilities: the caller says that it gives these.

    Raises:
        ModelError: there is none, or several.
    """
    if isinstance(returned, Tensor):
        return _of(returned, (), count, classes, name, probabilities=probabilities)
    found = [(path, tensor) for path, tensor in _tensors(returned, ()) if _is_row(tensor, count)]
    named = [(path, tensor) for path, tensor in found if path[-1] == "logits"]
    sized = [(path, tensor) for path, tensor in found if classes and tensor.shape[1:2] == (classes,)]
    for some in (named, sized, found):
        if some and all(_equal(tensor, some[0][1]) for _, tensor in some):
            path, tensor = some[0]
            return _of(tensor, path, count, classes, name, probabilities=probabilities)
    kind = type(returned).__name__
    shapes = [f"{_step(path)} {tuple(tensor.shape)}" for path, tensor in _tensors(returned, ())]
    which = _step(found[0][0]) if found else "[0]"
    raise ModelError(
        f"the model returns {kind} ({listed(shapes) or 'no tensors'}), and which part is the logits, "
        f"({count}, {classes or 'classes'}) here, is open; {_advice(name, which)}"
    )


def _of(
    tensor: Tensor, path: Path, count: int, classes: int | None, name: str, *, probabilities: bool
) -> Reading:
    shape = tuple(tensor.shape)
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(
            f"the model returns {kind} of shape {shape}, which are no logits but decisions or codes: return "
            f"floating-point logits ({count}, {classes or 'classes'}), from before an argmax or rounding"
        )
    if tensor.layout != torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        raise ModelError(f"the model returns logits of layout {kind}; return them dense, as by .to_dense()")
    if tensor.dim() > 2 and len(tensor) == count and shape[2:] == (1,) * (tensor.dim() - 2) and shape[1] > 1:
        return Reading(path, flat=True)
    if shape[:1] != (count,) or tensor.dim() == 0 or tensor.numel() not in (count, count * shape[-1]):
        raise ModelError(
            f"the model gives outputs of shape {shape} for {count} images; "
            f"give one that returns a row of logits for each image, ({count}, {classes or 'classes'}) here: "
            f"{_advice(name, '.flatten(1)' if tensor.dim() > 2 else '.reshape(len(x), -1)')}"
        )
    if tensor.numel() > count:
        return Reading(path)
    if classes != 2:
        said, way = f"for {classes} classes", ""
        if not classes:
            said = "and the number of classes is not known"
            way = "; if it is the logit of class 1, say --classes 2 (load_model(..., classes=2) in Python), "
            way += "or name two classes in the data (class_names)"
        raise ModelError(
            f"the model gives outputs of shape {shape}, one number for each image, {said}: return a row of "
            f"logits, ({count}, {classes or 'classes'}){way}"
        )
    return Reading(path, single=True)


def _tensors(returned: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(returned, Tensor):
        yield path, returned
        return
    if len(path) >= _DEPTH:
        return
    if isinstance(returned, Mapping):
        inside = [(key, value) for key, value in returned.items() if isinstance(key, str | int)]
    elif hasattr(returned, "_asdict"):  # a named tuple
        inside = list(returned._asdict().items())
    elif isinstance(returned, tuple | list):
        inside = list(enumerate(returned))
    else:
        inside = list(getattr(returned, "__dict__", {}).items())
    for step, value in inside:
        yield from _tensors(value, (*path, step))


def _is_row(tensor: Tensor, count: int) -> bool:
    """Whether it may be logits: a row of numbers for each image."""
    rest = tuple(tensor.shape[2:])
    return tensor.is_floating_point() and tensor.shape[:1] == (count,) and rest == (1,) * len(rest)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _step(path: Path) -> str:
    return "".join(f"[{step!r}]" for step in path)


def _advice(name: str, change: str) -> str:
    if not name:
        return "export the network so that it returns the logits alone"
    return f"for example: class Logits({name}): forward = lambda self, x: {name}.forward(self, x){change}"
