"""Evaluations whose processes die, share the work, or both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from advkit.models.checkpoint import save_model


def test_processes_find_what_one_finds_and_a_fault_of_one_ends_all(judged, tmp_path):
    model, data = judged
    save_model(model, tmp_path / "clf.pt")
    np.savez(tmp_path / "toy.npz", x=data.images.numpy(), y=data.labels.numpy())
    command = [sys.executable, str(Path(__file__).with_name("forked.py")), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    kinds = [line.partition(":")[0] for line in ended.stdout.splitlines()]
    assert kinds[:2] == ["LostError"] * 2 and kinds[2:5] == ["OutputError"] * 3
    assert kinds[5] == kinds[6]  # the folder is busy
    assert kinds.count("FAIL") == 2  # of two processes one speaks
    one, two = tmp_path / "one", tmp_path / "two"
    for name in ("verdicts.jsonl", "adversarial.bin", "examples.png", "resolved.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    mine, theirs = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert (mine["environment"].pop("processes"), theirs["environment"].pop("processes")) == ("1", "2")
    assert mine.pop("seconds") > 0 < theirs.pop("seconds")
    assert mine["cost"].pop("all_seconds") > 0 < theirs["cost"].pop("all_seconds")
    assert mine["cost"].pop("seconds") > 0 < theirs["cost"].pop("seconds")
    assert mine == theirs
