"""What a user's own network raises, as an error that names their line."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

import advkit
from advkit.core import memory
from advkit.core.errors import ModelError, UserError, by_size

_OURS = tuple(f"{Path(str(package.__file__)).parent}{os.sep}" for package in (advkit, torch))


def blamed(error: BaseException, network: nn.Module, x: object) -> ModelError | None:
    """The error to raise in place of ``error``; None if it is not for the user of the network to mend.

    Args:
        x: the network's input; no tensor while its graph is traced.
    """
    ours = isinstance(error, UserError) or type(network).__module__.startswith("advkit.")
    if ours or memory.exhausted(error) or not isinstance(x, Tensor) or torch.compiler.is_compiling():
        return None
    said = _place(error)[1]
    return ModelError(
        f"the model fails on {by_size(x.shape)} images ({said}); correct it, or check what it takes"
    )


@contextmanager
def backward_pass() -> Iterator[None]:
    """A backward pass through a user's network; what their own functions raise in it is their error.

    Raises:
        ModelError: in place of an error from a file that is neither ours nor PyTorch's.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        theirs, said = _place(error)
        if not theirs:
            raise
        raise ModelError(
            f"the model's backward pass fails ({said}); correct it, or attack without gradients: square"
        ) from error


def _place(error: BaseException) -> tuple[bool, str]:
    """Whether an error is from a user's file, and what is said of it, with the last of these lines."""
    reason = (str(error).splitlines() or [""])[0]
    said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith((*_OURS, "<"))]
    if not theirs:
        return False, said
    last = theirs[-1]
    return True, f"{_short(last.filename)}:{last.lineno} in {last.name}: {said}"


def _short(name: str) -> str:
    here = f"{Path.cwd()}{os.sep}"
    return name.removeprefix(here)
