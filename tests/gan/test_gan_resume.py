"""A run that is stopped and resumed ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advkit.data.data import Data
from advkit.errors import BusyError, ConfigError, DivergedError
from advkit.gan.adversarial import GanGame
from advkit.gan.plan import GanTraining
from advkit.gan.train import train_gan
from advkit.runs import RunFolder


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


@pytest.mark.parametrize("arch", ["mlp-gan", "conv-gan"])
@pytest.mark.parametrize(
    ("kind", "method", "calls", "after"),
    [
        (GanGame, "play", 1, False),
        (GanGame, "play", 3, True),
        (GanGame, "play", 8, False),
        (GanGame, "play", 12, True),
        (RunFolder, "metrics", 2, True),
        (RunFolder, "save_state", 2, False),
        (RunFolder, "save_state", 4, True),
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(
    kind: type, method: str, calls: int, after: bool, arch: str, data: Data, config: Callable, tmp_path: Path
) -> None:
    settings = config(arch=arch)
    whole = run(settings, data, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        stopping(patch, kind, method, calls, after=after)
        with pytest.raises(KeyboardInterrupt):
            run(settings, data, tmp_path / "parts")
    assert_same_bits(run(settings, data, tmp_path / "parts"), whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    steps = [row["step"] for row in rows(tmp_path / "parts")]
    assert steps == [3, 5, 6, 9, 10, 12]


def test_the_seed_decides(data: Data, config: Callable, tmp_path: Path) -> None:
    one, other = (tensors(run(config(seed=seed), data, tmp_path / str(seed))) for seed in (0, 1))
    weights = [name for name in one if name.endswith("weight")]
    assert weights
    assert not any(torch.equal(one[name], other[name]) for name in weights)


KILLED = """
import os, signal
from pathlib import Path
from advkit.gan.command import train
from advkit.gan.plan import GanTraining
from advkit.gan.adversarial import GanGame
from advkit.gan import witness
from advkit.context import Context

witness.WATCHED = 120
play = GanGame.play
def dying(game):
    if game.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return play(game)
GanGame.play = dying
train(GanTraining(**{values}), Context(out=Path("killed")))
"""


def test_a_killed_process_is_resumed_by_the_same_command(config: Callable, tmp_path: Path) -> None:
    from advkit.context import Context
    from advkit.gan.command import train

    settings = config()
    code = KILLED.replace("{values}", repr(settings.model_dump()))
    died = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=dict(os.environ), check=False)
    assert died.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "result.json").exists()
    resumed = train(settings, Context(out=Path("killed"), resume=True)).result
    whole = train(settings, Context(out=Path("whole"))).result
    assert (resumed["resumed_at"], whole["resumed_at"]) == (6, 0)
    assert resumed["models"] == whole["models"]
    assert resumed["last"] == whole["last"]
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_other_parameters_are_refused_with_what_differs(data: Data, config: Callable, tmp_path: Path) -> None:
    run(config(), data, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"batch_size was 8, is now 16; seed was 0, is now 3"):
        run(config(batch_size=16, seed=3), data, tmp_path / "run")


def test_a_second_process_is_refused(data: Data, config: Callable, tmp_path: Path) -> None:
    with (
        RunFolder.open("gan-train", "toy", config(), tmp_path / "run"),
        pytest.raises(BusyError, match="another process"),
    ):
        run(config(), data, tmp_path / "run")


def test_divergence_stops_with_a_sentence_and_leaves_the_last_good_state(
    data: Data, config: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = GanGame.play

    def wild(game: GanGame) -> Tensor:
        if game.step == 7:
            with torch.no_grad():
                next(game.generator.parameters()).fill_(float("nan"))
        return original(game)

    monkeypatch.setattr(GanGame, "play", wild)
    with pytest.raises(DivergedError, match=r"diverged at step 9: .*; try smaller learning rates"):
        run(config(), data, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["step"] == 6
    assert all(torch.isfinite(tensor).all() for tensor in tensors(state).values())


def test_rates_far_too_large_are_told(data: Data, config: Callable) -> None:
    with pytest.raises(DivergedError, match="--rate-generator"):
        train_gan(config(rate_discriminator=1e30, rate_generator=1e30, steps=50), data)


def test_global_random_state_is_left_alone(data: Data, config: Callable, tmp_path: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    run(config(arch="conv-gan"), data, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_global_random_state_has_no_influence(data: Data, config: Callable, tmp_path: Path) -> None:
    whole = run(config(), data, tmp_path / "one")
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        assert_same_bits(run(config(), data, tmp_path / "other"), whole)
