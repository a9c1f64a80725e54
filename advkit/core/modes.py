"""Modes of PyTorch that a caller may be in, and that must change no result."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from advkit.core.process import Shared


@contextmanager
def own_modes() -> Iterator[None]:
    """Gradients are recorded, whether the caller records them or not, and computations have the precision
    that the tensors and advkit's own settings say, not the caller's `torch.autocast`. What the caller has
    compiled runs as it is written, and tensors whose device is not said are on the CPU. Also a decorator."""
    with torch.inference_mode(False), torch.enable_grad(), _outside_autocast(), _uncompiled(), _on_cpu():
        yield


def _on_cpu() -> AbstractContextManager[Any]:
    """A mode of PyTorch that costs time in every call, so only where the caller has chosen another device."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def leaves_compilation_out() -> bool:
    """Whether this PyTorch can run compiled code as it is written."""
    return hasattr(torch.compiler, "set_stance")


def _uncompiled() -> AbstractContextManager[None]:
    """Compiled code can be neither traced nor differentiated twice. Nothing is compiled in a process that has
    not imported the compiler, which takes a second."""
    imported = "torch._dynamo" in sys.modules and leaves_compilation_out()
    return _UNCOMPILED if imported else nullcontext()


def _leave_out() -> Any:
    return torch.compiler.set_stance("force_eager")


def _put_back(stance: Any) -> None:
    stance.__exit__(None, None, None)


_UNCOMPILED = Shared(_leave_out, _put_back)


@contextmanager
def _outside_autocast() -> Iterator[None]:
    """As if no autocast had begun. An inner one, even one that is off, would not do: copies of weights are
    kept until the outermost ends, so a training inside would go on with weights of earlier steps."""
    depth = torch.autocast_increment_nesting()
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    for kind in kinds:
        torch.set_autocast_enabled(kind, False)
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        for kind in kinds:
            torch.set_autocast_enabled(kind, True)
        for _ in range(depth - 1):
            torch.autocast_increment_nesting()
