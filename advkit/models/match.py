"""Which architecture a bare state dict belongs to, found from the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.core.errors import ConfigError, by_size
from advkit.models.card import Shape
from advkit.models.checkpoint import State, first_mismatch
from advkit.models.network import Network, build

SIZES = {1: (28, 8, *range(9, 65)), 3: (32, 64, *range(8, 64))}
"""Image sizes to try by number of channels, the common ones first."""

_COUNTER = "num_batches_tracked"  # of batch norm; older files lack it, and nothing depends on it


@dataclass(frozen=True)
class Fit:
    """One way to read a state dict."""

    architecture: str
    shape: Shape
    classes: int | None
    state: State
    """The weights under the architecture's own names."""
    by_order: bool
    """The names are others, and the tensors were taken in their order."""
    size_open: bool
    """The weights fit images of other sizes too."""


def fits(state: Mapping[str, Tensor], names: Sequence[str], shape: Shape | None = None) -> list[Fit]:
    """One fit for each of the architectures ``names`` that the tensors fit, with its default parameters.

    Args:
        state: a state dict of unknown origin.
        names: architectures to try.
        shape: the images it is probably for, tried first.
    """
    found = (_fit(state, name, shape) for name in names)
    return [fit for fit in found if fit is not None]


def misfit(state: Mapping[str, Tensor], name: str, shape: Shape | None = None) -> str:
    """Why the tensors do not fit the architecture ``name``, on images of ``shape`` or a common size."""
    shape = shape or _shapes(state)[0]
    expected = _expected(name, shape, _classes(state, name, shape))
    if expected is None:
        return "its parameters have no defaults"
    own, theirs = _weights(expected), _weights(state)
    images = by_size(shape)
    if len(own) != len(theirs):
        return f"they are {len(theirs)} tensors where {len(own)} are wanted"
    if set(own) != set(theirs):
        state = {mine: state[their] for mine, their in zip(own, theirs, strict=True)}
    return f"on {images} images, {first_mismatch({key: expected[key] for key in own}, state)}"


def rename(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> State | None:
    """``state`` under the names of ``expected``: by name where these agree, else by order; None if a
    shape differs."""
    own, theirs = _weights(expected), _weights(state)
    if len(own) != len(theirs):
        return None
    pairs = list(zip(own, own if set(own) == set(theirs) else theirs, strict=True))
    if any(expected[mine] != state[their].shape for mine, their in pairs):
        return None
    renamed = {mine: state[their] for mine, their in pairs}
    return {name: renamed.get(name, state.get(name, torch.tensor(0))) for name in expected}


def _fit(state: Mapping[str, Tensor], name: str, shape: Shape | None) -> Fit | None:
    shapes = list(dict.fromkeys(([shape] if shape else []) + _shapes(state)))
    classes = _classes(state, name, shapes[0])
    for candidate in shapes:
        expected = _expected(name, candidate, classes)
        if expected is None:
            continue
        if len(_weights(expected)) != len(_weights(state)):
            return None
        renamed = rename(state, expected)
        if renamed is not None:
            channels, height, width = candidate
            other = _expected(name, (channels, height + 1, width), classes)
            knows = _meta(name, candidate, classes).classes
            by_order = set(_weights(expected)) != set(_weights(state))
            return Fit(name, candidate, knows, renamed, by_order, size_open=other == expected)
    return None


def _shapes(state: Mapping[str, Tensor]) -> list[Shape]:
    """Image shapes to try; the channels are those of the first convolution, if that comes first."""
    first = next((tensor for tensor in state.values() if tensor.dim() in (2, 4)), None)
    channels: Iterable[int] = SIZES
    if first is not None and first.dim() == 4 and first.shape[1] in SIZES:
        channels = [first.shape[1]]
    return [(channel, size, size) for channel in channels for size in SIZES[channel]]


def classes_in(
    state: Mapping[str, Tensor], expected: Callable[[int], Mapping[str, torch.Size] | None]
) -> int | None:
    """How many classes the weights were trained for.

    Args:
        state: a state dict in any order.
        expected: the shapes that a network of so many classes has; None where there is no such network.

    Returns:
        The size of a tensor whose size follows the classes, where the names agree; else of the last tensor.
    """
    two, three = expected(2) or {}, expected(3) or {}
    for name, shape in two.items():
        if name in state and shape != three.get(name) and state[name].dim() > 0:
            return len(state[name])
    return next((len(tensor) for tensor in reversed(list(state.values())) if tensor.dim() > 0), None)


def _classes(state: Mapping[str, Tensor], name: str, shape: Shape) -> int | None:
    return classes_in(state, lambda classes: _expected(name, shape, classes))


def _expected(name: str, shape: Shape, classes: int | None) -> dict[str, torch.Size] | None:
    """Shapes of the tensors of a network that is not really built; None where it cannot be."""
    try:
        network = _meta(name, shape, classes)
    except ConfigError:
        return None
    return {key: tensor.shape for key, tensor in network.state_dict().items()}


def _meta(name: str, shape: Shape, classes: int | None) -> Network:
    with torch.device("meta"):
        return build(name, shape=shape, classes=classes)


def _weights(state: Mapping[str, object]) -> list[str]:
    return [name for name in state if not name.endswith(_COUNTER)]
