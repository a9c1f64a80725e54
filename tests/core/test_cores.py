"""Cores that a process may use."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from advkit.core import cores

LIMITS = [
    ({"cpu.max": "50000 100000\n"}, "0::/\n", 0.5),
    ({"cpu.max": "max 100000\n"}, "0::/\n", math.inf),
    (
        {"cpu.max": "300000 100000\n", "a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 1\n"},
        "0::/a/b\n",
        1.5,
    ),
    (
        {"cpu/a/cpu.cfs_quota_us": "200000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
        "12:memory:/x\n4:cpu,cpuacct:/a\n0::/\n",
        2.0,
    ),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu:/\n", math.inf),
    ({}, "0::/a\n", math.inf),
    ({}, None, math.inf),
]


@pytest.mark.parametrize(("groups", "own", "limit"), LIMITS)
def test_the_least_quota_counts(tmp_path, groups, own, limit):
    for name, text in groups.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text, encoding="utf-8")
    if own is not None:
        (tmp_path / "own").write_text(own, encoding="utf-8")
    assert cores.quota(tmp_path / "groups", tmp_path / "own") == limit


@pytest.mark.parametrize(("allowed", "threads"), [(0.5, 1), (1.5, 2), (math.inf, None)])
def test_threads_follow_the_quota(monkeypatch, allowed, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "_affinity", lambda: 8)
    monkeypatch.setattr(cores, "quota", lambda: allowed)
    cores.limit_threads()
    assert os.environ.get("OMP_NUM_THREADS") == (threads and str(threads))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    cores.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_threads_follow_the_affinity():
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}]); import torch; print(torch.get_num_threads())"
    told = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert cores.cores() <= len(os.sched_getaffinity(0))


def test_the_command_line_limits_threads(monkeypatch, tmp_path):
    """The limit is set before PyTorch is imported."""
    path = Path(cores.__file__).parents[2]
    code = (
        "import sys; from advkit.core import cores; cores.quota = lambda: 0.5; cores._affinity = lambda: 8\n"
        "from advkit.cli.app import app\n"
        "try: app.main(['--version'])\n"
        "except SystemExit: pass\n"
        "import torch; print(torch.get_num_threads())"
    )
    told = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**told, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == "1"
