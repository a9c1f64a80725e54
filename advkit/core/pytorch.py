"""What PyTorch's versions do differently, from 2.4 on; nothing else in advkit asks for the version."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch


def cpu_capabilities() -> Mapping[str, Any]:
    """The processor's architecture and the number formats that it computes in itself."""
    if hasattr(torch.cpu, "get_capabilities"):  # from 2.10 on
        return torch.cpu.get_capabilities()
    try:
        words = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        words = set()
    flags = {name: name in words for name in ("avx512_bf16", "amx_bf16", "bf16")}
    return {"architecture": platform.machine(), **flags}


class Setting(NamedTuple):
    """A setting of PyTorch that decides what float32 passes are computed in."""

    device_type: str
    owner: Any
    name: str
    exact: tuple[Any, ...]
    """The values that mean float32, the one to set first."""

    @property
    def value(self) -> Any:
        """Its value now."""
        return getattr(self.owner, self.name)


class _CpuMatmul:
    """The precision of matrix products on the CPU, before PyTorch 2.9."""

    precision = property(
        lambda self: torch.get_float32_matmul_precision(),
        lambda self, value: torch.set_float32_matmul_precision(value),
    )


def float32_settings() -> list[Setting]:
    """The settings of float32 passes, on all devices."""
    backends: Any = torch.backends
    if hasattr(backends.mkldnn, "matmul"):  # from 2.9 on
        gpu = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
        cpu = [backends.mkldnn.matmul, backends.mkldnn.conv]
        owners = [("cuda", owner) for owner in gpu] + [("cpu", owner) for owner in cpu]
        return [Setting(kind, owner, "fp32_precision", ("ieee", "none")) for kind, owner in owners]
    return [  # the first sets the second, too
        Setting("cpu", _CpuMatmul(), "precision", ("highest",)),
        Setting("cuda", backends.cuda.matmul, "allow_tf32", (False,)),
        Setting("cuda", backends.cudnn, "allow_tf32", (False,)),
    ]
