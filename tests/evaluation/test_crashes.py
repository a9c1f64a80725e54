"""Evaluations whose processes die, share the work, or both."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from advkit.cli.app import app
from advkit.models.checkpoint import save_model

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
FORKED = Path(__file__).with_name("forked.py")


def test_processes_find_what_one_finds_and_a_fault_of_one_ends_all(tmp_path):
    command = [sys.executable, str(FORKED), str(tmp_path)]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    kinds = [line.partition(":")[0] for line in ended.stdout.splitlines()]
    assert kinds[:2] == ["LostError"] * 2 and kinds[2:5] == ["OutputError"] * 3 and len(kinds) == 7
    assert kinds[5] == kinds[6]  # the folder is busy


def torchrun(*words):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "--", "advkit", *words]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)


def test_torchrun(judged, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model, data = judged
    save_model(model, "clf.pt")
    np.savez("toy.npz", x=data.images.numpy(), y=data.labels.numpy())
    words = shlex.split("attack --model clf.pt --data npz:toy.npz --norm linf --eps 0.01 --n 28")
    words += ["--attack=noise,pgd", "--set=parameters.pgd.steps=5", "--min-robust=0.99"]
    shared = torchrun(*words, "--out", "two", "--json", "two.json")
    assert "exitcode  : 1" in shared.stderr and "exitcode  : 2" not in shared.stderr  # the bar was missed
    try:
        app.main([*words, "--out", "one", "--json", "one.json"])
    except SystemExit as leaving:
        assert leaving.code == 1
    told = capsys.readouterr().out
    assert [line for line in shared.stdout.splitlines() if line.startswith("FAIL")]
    assert shared.stdout.replace("two", "one") == told
    for name in ("verdicts.jsonl", "adversarial.bin", "examples.png", "resolved.json"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    assert sorted(path.name for path in Path("one").iterdir()) == sorted(
        path.name for path in Path("two").iterdir()
    )
    one, two = (json.loads(Path(f"{name}.json").read_text()) for name in ("one", "two"))
    assert (one["environment"].pop("processes"), two["environment"].pop("processes")) == ("1", "2")
    assert one.pop("seconds") > 0 < two.pop("seconds")
    assert one == two
