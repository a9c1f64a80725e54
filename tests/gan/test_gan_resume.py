"""A run that is stopped and resumed ends with the bits of one that was not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advkit.commands.gan_train import run as train
from advkit.core.context import Context
from advkit.core.errors import BusyError, ConfigError
from advkit.core.runs import RunFolder
from advkit.data.data import Data
from advkit.gan.adversarial import GanGame
from advkit.gan.settings import GanTraining
from advkit.gan.train import train_gan


def run(config: GanTraining, data: Data, out: Path) -> dict[str, Any]:
    """Trains in ``out`` and gives the last state."""
    with RunFolder.open("gan-train", "toy", config, out) as folder:
        train_gan(config, data, run=folder)
        state = folder.load_state()
        assert state is not None
        return state


def tensors(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor in nested dictionaries and lists, by its place."""
    if isinstance(state, Tensor):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {
        name: tensor for key, value in items for name, tensor in tensors(value, f"{prefix}.{key}").items()
    }


def assert_same_bits(one: dict[str, Any], other: dict[str, Any]) -> None:
    mine, theirs = tensors(one), tensors(other)
    assert one["step"] == other["step"]
    assert mine.keys() == theirs.keys()
    assert any("exp_avg_sq" in name for name in mine)
    assert any(".ema." in name for name in mine)
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics without the only figure that a clock decides."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in found:
        assert row.pop("images_per_second") > 0
    return found


def stopping(monkeypatch: pytest.MonkeyPatch, kind: type, method: str, calls: int, *, after: bool) -> None:
    """Has ``kind.method`` interrupted, as by Ctrl-C, at its call number ``calls``, once."""
    original, count = getattr(kind, method), 0

    def stopped(self: Any, *args: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls and not after:
            raise KeyboardInterrupt
        answer = original(self, *args, **more)
        if count == calls:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(kind, method, stopped)


def test_an_interrupted_command_goes_on(config, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        stopping(patch, GanGame, "update", 10, after=False)  # the first is the plan's
        with pytest.raises(KeyboardInterrupt):
            train(config(), Context(out=Path("cut")))
    resumed = train(config(), Context(out=Path("cut"), resume=True)).result
    whole = train(config(), Context(out=Path("whole"))).result
    assert (resumed["resumed_at"], whole["resumed_at"]) == (9, 0)
    assert (resumed["models"], resumed["last"]) == (whole["models"], whole["last"])
    assert rows(Path("cut")) == rows(Path("whole"))


def test_other_parameters_and_a_second_process_are_refused(data, config, tmp_path):
    with RunFolder.open("gan-train", "toy", config(), tmp_path / "run"), pytest.raises(BusyError):
        run(config(), data, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"batch_size was 8, is now 16; seed was 0, is now 3"):
        run(config(batch_size=16, seed=3), data, tmp_path / "run")


def test_global_random_state_is_left_alone_and_has_no_influence(data, config, tmp_path):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    whole = run(config(arch="conv-gan", steps=4), data, tmp_path / "one")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        assert_same_bits(run(config(arch="conv-gan", steps=4), data, tmp_path / "other"), whole)
