"""What TensorBoard is told is what metrics.jsonl says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from advkit.context import Context
from advkit.errors import ConfigError
from advkit.gan.command import train


def test_figures_and_samples_are_those_of_the_run(config: Callable) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(config(name="toy", tensorboard=True), Context(out=Path("run")))
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator("run/tensorboard").Reload()
    told = [(event.step, event.value) for event in events.Scalars("d_loss")]
    assert told == [(row["step"], pytest.approx(row["d_loss"])) for row in rows]
    assert [event.step for event in events.Images("samples")] == [row["step"] for row in rows if "fid" in row]


def test_without_the_module_a_sentence_names_it(config: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match="run: pip install tensorboard"):
        train(config(tensorboard=True), Context(out=Path("run")))
    assert not Path("run").exists()
