"""Several processes that share one piece of work, as ``torchrun`` starts them; one alone does nothing here.

The runtime is PyTorch's own. This module is the small part that the rest of advkit uses: the rank of a
process, exchanges of values, and the rule that an error in one process ends all of them. Every function but
`rank`, `local_rank` and `world` is collective: all processes call it, in the same order.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from advkit.core.errors import LostError, UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long a process waits for the others; one that has died is noticed at once."""


def rank() -> int:
    """The number of this process; 0 speaks and writes for all."""
    runtime = _runtime()
    return 0 if runtime is None else int(runtime.get_rank())


def local_rank() -> int:
    """Its number on this machine, by which processes share the machine's devices out."""
    return 0 if _runtime() is None else int(os.environ.get("LOCAL_RANK", "0"))


def world() -> int:
    """How many processes there are."""
    runtime = _runtime()
    return 1 if runtime is None else int(runtime.get_world_size())


def gather(value: T) -> list[T]:
    """The value of every process, by rank, in all of them.

    Raises:
        Exception: what another process has raised inside `together`.
        LostError: another process has ended.
    """
    if world() == 1:
        return [value]
    faults, values = _exchange(None, value)
    for fault in faults:
        if fault is not None:
            raise fault
    return values


def share(value: T) -> T:
    """The value of process 0, in all."""
    return gather(value)[0]


def average(tensors: Iterable[Tensor]) -> None:
    """Each tensor becomes its mean over the processes, in place: floats of one type, on one device.

    Raises:
        LostError: another process has ended.
    """
    if world() == 1:
        return
    parts = list(tensors)
    if not parts:
        return
    from torch import cat

    flat = cat([part.detach().flatten() for part in parts])
    try:
        _runtime().all_reduce(flat)
    except RuntimeError as error:
        raise _lost() from error
    flat /= world()
    for part, mean in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
        part.detach().copy_(mean.view_as(part))


@contextmanager
def together() -> Iterator[None]:
    """What one process raises inside, all raise: at the next `gather`, or at the end of the block."""
    try:
        yield
    except Exception as fault:
        if world() > 1 and not getattr(fault, "reported", False):
            fault.reported = True  # type: ignore[attr-defined]
            with suppress(LostError):
                _exchange(fault, None)
        raise
    gather(None)


def wait() -> None:
    """Until all are here, or have ended."""
    with suppress(LostError):
        gather(None)


def launched() -> bool:
    """Whether ``torchrun`` has started this process and others beside it."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def leave(code: int) -> NoReturn:
    """Ends a process that has joined others, without the interpreter's own end and PyTorch's destructors.

    In the former PyTorch's threads abort now and then. In the latter a process blocks in about one of eight
    ends up to PyTorch 2.7.1: it joins gloo's thread, which waits for the interpreter's lock.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def join() -> None:
    """Joins the processes that ``torchrun`` has started beside this one, which then ends with `leave`."""
    if not launched():
        return
    from torch import distributed
    from torch.cuda import device_count

    # Plain values and tensors on the CPU go through gloo; means of tensors on a GPU stay on the GPUs, if each
    # process has one of its own: NCCL refuses two on one.
    alone = device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if alone else "gloo", timeout=PATIENCE)


def _runtime() -> Any:
    """`torch.distributed` where a process group has begun; nothing is imported to find out."""
    runtime = sys.modules.get("torch.distributed")
    return runtime if runtime is not None and runtime.is_available() and runtime.is_initialized() else None


def _exchange(fault: Exception | None, value: Any) -> tuple[list[Exception | None], list[Any]]:
    answers: list[Any] = [None] * world()
    try:
        _runtime().all_gather_object(answers, (fault and _portable(fault), value))
    except RuntimeError as error:
        raise _lost() from error
    faults, values = zip(*answers, strict=True)
    return list(faults), list(values)


def _lost() -> LostError:
    lost = LostError(
        "another process of this run has ended without an error message (killed, or out of memory); "
        "run the same command again to resume"
    )
    lost.reported = True  # type: ignore[attr-defined]
    return lost


def _portable(fault: Exception) -> Exception:
    """The fault as another process may raise it, with the place where it happened if it is not the user's."""
    try:
        copy: Exception = pickle.loads(pickle.dumps(fault))
    except Exception:  # an exception may hold anything
        copy = RuntimeError(f"{type(fault).__name__}: {fault}")
    if not isinstance(fault, UserError):
        copy.add_note(f"in process {rank()}:\n{''.join(traceback.format_exception(fault))}")
    copy.reported = True  # type: ignore[attr-defined]
    return copy
