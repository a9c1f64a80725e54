"""Several processes train one GAN: each sees its share of every batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advkit.commands.gan_train import run as train
from advkit.core.context import Context
from advkit.gan.settings import GanTraining
from advkit.models.checkpoint import load_checkpoint

TRAIN: dict[str, Any] = {
    "data": "npz:toy.npz",
    "arch": "dense-conv-gan",
    "steps": 6,
    "batch_size": 16,
    "sample_every": 3,
    "checkpoint_every": 3,
    "precision": "float32",
    "regularisers": ["r1"],
    "ema": 40,
    "augment": ["shift"],
    "augment_probability": 0,
    "generator": {"channels": [8, 8]},
    "discriminator": {"hidden": 8},
}


def test_two_learn_what_one_learns_but_for_the_order_of_sums():
    """The networks have no batch norm and no dropout, so that shares of a batch add up to it."""
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    np.savez("toy.npz", x=images, y=np.arange(40) % 2)
    train(GanTraining.model_validate(TRAIN), Context(out=Path("one")))
    plain = {key: value for key, value in TRAIN.items() if not isinstance(value, list | dict)}
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in plain.items()]
    flags += ["--regularisers=r1", "--augment=shift"]
    flags += ["--set=generator.channels=[8,8]", "--set=discriminator.hidden=8"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*launch, "advkit", "gan-train", *flags, "--out", "two"]
    two = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("generated images") == 1  # one process speaks
    for name in ("generator", "ema", "discriminator"):
        mine, theirs = (load_checkpoint(Path(run) / f"{name}.safetensors") for run in ("one", "two"))
        weights = theirs.network.state_dict()
        for key, value in mine.network.state_dict().items():
            assert torch.allclose(value, weights[key], atol=2e-5), (name, key)
    rows = [
        list(map(json.loads, Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()))
        for run in ("one", "two")
    ]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for key in ("d_loss", "d_accuracy_real", "g_loss"):
        assert np.allclose(*([row[key] for row in run] for run in rows), rtol=1e-3)
    names = [{path.name for path in Path(run).iterdir()} for run in ("one", "two")]
    assert names[1] - names[0] == {"report.html"}  # the command line's
