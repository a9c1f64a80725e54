"""How many cores this process may use, which in a container are often fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path


def limit_threads() -> None:
    """Has PyTorch, which is not imported yet, start no more threads than there are cores for.

    By itself it follows the affinity, but no quota: 64 threads would then wait for half a core.
    """
    if quota() < _affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def cores() -> int:
    """Cores by affinity and quota; a part of one counts as one."""
    return max(1, math.ceil(min(_affinity(), quota())))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Cores that the control group and those above it allow; infinite where none has a limit.

    Args:
        groups: where control groups are mounted.
        own: the file that names those of this process.
    """
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:  # no Linux
        return math.inf
    limits = [math.inf]
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "" or "cpu" in kinds.split(","):
            top = groups / "cpu" if kinds else groups
            inner = top / path.lstrip("/")
            limits += [_limit(folder) for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return min(limits)


def _limit(folder: Path) -> float:
    """The quota of one group: ``cpu.max`` in version 2 of control groups, two files in version 1."""
    names = ("cpu.max",) if (folder / "cpu.max").exists() else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    try:
        time, period = " ".join((folder / name).read_text("utf-8") for name in names).split()
        return float(time) / float(period) if float(time) > 0 else math.inf
    except (OSError, ValueError):  # none, or "max"
        return math.inf
