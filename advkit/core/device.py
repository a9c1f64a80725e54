"""The device, and the numeric precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from advkit.core import distributed, pytorch
from advkit.core.config import Precision
from advkit.core.errors import ConfigError


def choose(device: str = "auto") -> torch.device:
    """The device by name; ``auto`` takes cuda, then mps, then cpu.

    Processes that share the work share out the machine's GPUs, unless one is named by its number.

    Raises:
        ConfigError: the name is unknown, or the device is not there.
    """
    if device in ("auto", "cuda") and torch.cuda.is_available():
        if distributed.world() == 1:
            return torch.device("cuda")
        return torch.device("cuda", distributed.local_rank() % torch.cuda.device_count())
    if device == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {device!r}; use auto, cpu, cuda, cuda:1 or mps") from error
    available = {
        "cpu": True,
        "cuda": (chosen.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(chosen.type, False):
        raise ConfigError(f"device {device!r} is not available on this machine; use --device cpu or auto")
    return chosen


def arithmetic(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The arithmetic that ``precision`` means on this device."""
    if precision == "auto":
        return "bfloat16" if computes_bfloat16(device) else "float32"
    return precision


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the processor multiplies in bfloat16 itself; one that imitates it is slower, not faster.

    ``ATEN_CPU_CAPABILITY=avx2`` makes PyTorch treat any x86 processor as one without bfloat16, and so do we.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    able = pytorch.cpu_capabilities()
    capped = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    if able.get("architecture") == "x86_64" and capped:
        return False
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))


def coarse_float32(device: torch.device) -> bool:
    """Whether PyTorch may compute float32 in something coarser there: TF32 or bfloat16.

    On GPUs that is its default for convolutions.
    """
    settings = pytorch.float32_settings()
    return any(each.value not in each.exact for each in settings if each.device_type == device.type)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, float32 is float32 on every device."""
    settings = pytorch.float32_settings()
    before = [each.value for each in settings]
    for each in settings:
        setattr(each.owner, each.name, each.exact[0])
    try:
        yield
    finally:
        for each, value in zip(settings, before, strict=True):
            setattr(each.owner, each.name, value)


@contextmanager
def repeatable() -> Iterator[None]:
    """Inside, cuDNN computes the same bits each time: a run resumed on a GPU equals one without a break."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
