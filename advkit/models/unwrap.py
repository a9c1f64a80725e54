"""The state dicts in what a PyTorch file holds, and the plain types that may lie beside them."""

from __future__ import annotations

import argparse
import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advkit.core.errors import ModelError, did_you_mean, listed

_BESIDE = re.compile(r"optim|sched|scaler|rng|hyper|args|config|callbacks|loops", re.IGNORECASE)
"""Keys of what training code keeps beside the weights."""
DEPTH = 8
"""How deep in dictionaries a state dict may lie."""
MOST = 100_000
"""Tensors of a file."""
_NUMBERS = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}
_LAYER = re.compile(r"(.*\.)?(weight|bias|running_mean)")


def unwrap(content: Any, path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The state dict that ``content`` holds, under whatever keys.

    Args:
        key: which one, where there are several: its key, or the prefix of its names.

    Raises:
        ModelError: there is none, or several and ``key`` names none of them.
    """
    found = dict(_states(content, skip=True)) or dict(_states(content, skip=False))
    if not found:
        keys = f"keys {listed(map(repr, content))}" if isinstance(content, Mapping) else ""
        raise ModelError(
            f"{path} holds no state dict (found {keys or type(content).__name__}); "
            "save model.state_dict(), names to tensors, alone or under the key 'state_dict'"
        )
    for state in found.values():
        refuse_odd(state, path)
    if key is not None:
        return _chosen(found, path, key)
    first, *others = found.values()
    if any(not _equal(first, other) for other in others):
        raise ModelError(
            f"{path} holds several state dicts ({', '.join(found)}); say which with --weights-key "
            f"(weights_key= in Python), for example --weights-key {list(found)[-1]}",
            code="several-weights",
        )
    return first


def choose(state: dict[str, Tensor], path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a flat state dict whose names begin with ``key``, without it."""
    return _chosen({"": state}, path, key)


def refuse_odd(state: Mapping[str, Tensor], path: Path) -> None:
    """Raises a `ModelError` for tensors that are no plain numbers, or are said to exceed the file.

    A tensor may repeat a number, or share it with others, so that a small file could fill the memory.
    """
    size = 0
    for name, tensor in state.items():
        what = [str(tensor.dtype).removeprefix("torch.")] if tensor.dtype not in _NUMBERS else []
        what += [str(tensor.layout).removeprefix("torch.")] if tensor.layout != torch.strided else []
        what += ["nested"] if tensor.is_nested else []
        what += [f"on device {tensor.device}"] if tensor.device.type != "cpu" else []
        if what:
            raise ModelError(
                f"{path} holds {name!r} as a tensor that advkit does not read ({', '.join(what)}); "
                "save dense tensors of floating-point numbers or integers"
            )
        size += tensor.numel() * tensor.element_size()
    if size > 8 * path.stat().st_size + (1 << 26) or len(state) > MOST:
        raise ModelError(
            f"{path} is damaged: {len(state):,} tensors say to take {size:,} bytes; take another copy"
        )


def _states(
    content: Any, key: str = "", *, skip: bool, above: tuple[int, ...] = ()
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for _ in range(DEPTH):
        if not (isinstance(content, list) and len(content) == 1):
            break
        content = content[0]
    if not isinstance(content, Mapping) or "param_groups" in content:
        return
    if len(above) == DEPTH or id(content) in above:
        return
    inner = [
        found
        for name, value in content.items()
        if isinstance(name, str) and not (skip and _BESIDE.search(name))
        for found in _states(
            value, f"{key}.{name}"[:1000] if key else name, skip=skip, above=(*above, id(content))
        )
    ]
    tensors = {name: value.detach() for name, value in content.items() if _named_tensor(name, value)}
    if any(tensor.is_floating_point() and tensor.dim() > 0 for tensor in tensors.values()) and (
        not inner or any(map(_LAYER.fullmatch, tensors))
    ):
        yield key, tensors
    yield from inner


def _named_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and torch.is_tensor(value)


def _chosen(found: Mapping[str, dict[str, Tensor]], path: Path, key: str) -> dict[str, Tensor]:
    if key in found:
        return found[key]
    ends = [state for name, state in found.items() if name.endswith(f".{key}")]
    lead = f"{key.removesuffix('.')}."
    inside = [
        {name.removeprefix(lead): tensor for name, tensor in state.items() if name.startswith(lead)}
        for state in found.values()
    ]
    chosen = ends or [state for state in inside if state]
    if len(chosen) == 1:
        return chosen[0]
    prefixes = {name.partition(".")[0] for state in found.values() for name in state if "." in name}
    known = [name for name in found if name] + sorted(prefixes)
    raise ModelError(
        f"{path} holds {'several' if chosen else 'no'} weights under {key!r}{did_you_mean(key, known)}; "
        f"it has {listed(known, 12)}"
    )


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@contextmanager
def plain_types() -> Iterator[None]:
    """Lets ``torch.load(weights_only=True)`` make numbers and arrays of NumPy and `argparse.Namespace`, whose
    makers execute nothing that a file says."""
    before = [*torch.serialization.get_safe_globals()]  # PyTorch 2.4 gives the list that it goes on adding to
    torch.serialization.add_safe_globals([*_plain()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _plain() -> Iterator[Any]:
    yield from (argparse.Namespace, np.ndarray, np.dtype, codecs.encode)
    yield from (kind for kind in vars(np.dtypes).values() if isinstance(kind, type))
    number, array = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]

    def empty(kind: Any, shape: Any, code: Any) -> Any:
        """As a pickle of an array calls it: without elements, which come later."""
        if tuple(shape) != (0,):
            raise ValueError("an array is made that is not empty")
        return array(kind, shape, code)  # type: ignore[operator]

    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before and after NumPy 2
        yield _called(f"{core}.scalar", number)  # type: ignore[arg-type]
        yield _called(f"{core}._reconstruct", empty)


def _called(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under the name that a pickle calls it by."""

    def alias(*args: Any) -> Any:
        return function(*args)

    alias.__module__, _, alias.__qualname__ = name.rpartition(".")
    alias.__name__ = alias.__qualname__
    return alias
