"""Several processes train one classifier: each sees its share of every batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advkit.commands.adv_train import run as adv_train
from advkit.core import distributed
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.models.checkpoint import load_checkpoint
from advkit.training import trainer
from advkit.training.settings import AdversarialTraining, Fitting
from advkit.training.trainer import Trainer

TRAIN: dict[str, Any] = {
    "data": "npz:toy.npz",
    "arch": "small-cnn",
    "norm": "linf",
    "eps": 0.1,
    "also": ["l2:0.5"],
    "union": "average",
    "epochs": 2,
    "batch_size": 20,
    "checks": 2,
    "holdout": 0.3,
}
INNER = {"steps": 2, "awp": 0.01}


def test_two_learn_what_one_learns_but_for_the_order_of_sums():
    """The network has no batch norm and no dropout, so that shares of a batch add up to it."""
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 40, (60, 1, 8, 8)) + 60 * labels[:, None, None, None]
    np.savez("toy.npz", x=images.astype(np.uint8), y=labels)
    adv_train(validate(AdversarialTraining, {**TRAIN, "parameters": INNER}, "test"), Context(out=Path("one")))
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in TRAIN.items() if key != "also"]
    flags += ["--also=l2:0.5", *(f"--set=parameters.{key}={value}" for key, value in INNER.items())]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    two = subprocess.run(
        [*launch, "-m", "--", "advkit", "adv-train", *flags, "--out", "two"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("trained against") == 1  # one process speaks
    mine, theirs = (load_checkpoint(Path(run) / "model.safetensors") for run in ("one", "two"))
    weights = theirs.network.state_dict()
    for key, value in mine.network.state_dict().items():
        assert torch.allclose(value, weights[key], atol=2e-5), key
    rows, others = (
        [json.loads(line) for line in Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for run in ("one", "two")
    )
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, rel=1e-3)
    names = [{path.name for path in Path(run).iterdir()} for run in ("one", "two")]
    assert names[1] - names[0] == {"report.html"}  # the command line's
    tested = [
        json.loads(Path(run, "result.json").read_text(encoding="utf-8"))["test"] for run in ("one", "two")
    ]
    assert tested[0] == tested[1]


def test_a_batch_that_cannot_be_shared_out(monkeypatch, make, digits, objective):
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(ConfigError):
        Trainer(make(), Fitting(batch_size=15), digits, objective("standard"), (), torch.device("cpu"), {})


def test_the_rows_of_all_processes_are_in_the_order_of_the_batch(monkeypatch):
    batch = torch.arange(12).view(6, 2)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed, "gather", lambda rows: [batch[0::2], batch[1::2]])
    assert trainer._whole(batch[0::2]).equal(batch)
