"""Several processes train one GAN: each sees its share of every batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from advkit.models.checkpoint import load_checkpoint

TRAIN = """
    gan-train --data npz:toy.npz --arch dense-conv-gan --steps 6 --batch-size 16 --sample-every 3
    --checkpoint-every 3 --precision float32 --regularisers r1 --ema 40
    --augment shift --augment-probability 0 --set generator.channels=[8,8] --set discriminator.hidden=8
"""


def advkit(*words: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", *(["--"] if processes > 1 else []), "advkit", *TRAIN.split(), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def toy() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    np.savez("toy.npz", x=images, y=np.arange(40) % 2)


def test_two_learn_what_one_learns_but_for_the_order_of_sums() -> None:
    """The networks have no batch norm and no dropout, so that shares of a batch add up to it."""
    one, two = advkit("--out", "one"), advkit("--out", "two", processes=2)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert two.stdout.count("generated images") == 1  # one process speaks
    for name in ("generator", "ema", "discriminator"):
        mine, theirs = (load_checkpoint(Path(run) / f"{name}.safetensors") for run in ("one", "two"))
        weights = theirs.network.state_dict()
        for key, value in mine.network.state_dict().items():
            assert torch.allclose(value, weights[key], atol=2e-5), (name, key)
    rows = [
        [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for key in ("d_loss", "d_accuracy_real", "g_loss", "fid"):
        assert [row[key] for row in rows[0]] == pytest.approx([row[key] for row in rows[1]], rel=1e-3)
    names = [sorted(path.name for path in Path(run).iterdir()) for run in ("one", "two")]
    assert names[0] == names[1]


def test_a_batch_that_cannot_be_shared_out() -> None:
    told = advkit("--batch-size", "15", "--out", "odd", processes=2)
    assert "batch of 15 images is no multiple of 2" in told.stderr
    assert not Path("odd").exists()
