"""The bench of few labels: it does not do a training twice, and its table is of its lines."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from advkit.report.outcome import Outcome

BENCH = Path(__file__).parents[2] / "recipes" / "bench" / "few_labels.py"


@pytest.fixture
def bench(monkeypatch):
    """The script with trainings that take no time; ``bench.done`` lists them."""
    spec = importlib.util.spec_from_file_location("few_labels", BENCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.done = []

    def train(way, labels, seed, options):
        module.done.append((way, labels, seed))
        row = {"clean": 10 + seed, "n": 100, "robust": 20, "attacked": 40}
        errors = {"fine-tuned": row, "from scratch": {**row, "clean": 30}}
        if way != "scratch":
            del errors["from scratch"]
        test = row if way.startswith("K+1") else {"errors": errors}
        return Outcome("", result={"test": test, "updates": 5})

    module.train = train
    return module


def run(bench, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["few_labels.py", "--data", "digits", "--out", "few.jsonl", *words])
    bench.main()


def test_a_bench_goes_on_where_it_stopped(bench, discriminator, vae, monkeypatch, capsys):
    words = "--discriminator critic --vae toy --labels 10,all --ways scratch,full,encoder,K+1"
    some = words.split()
    run(bench, monkeypatch, *some, "--seeds", "1")
    assert bench.done == [
        ("scratch", 10, 0),  # which leaves the line of `full`, too
        ("encoder", 10, 0),
        ("K+1", 10, 0),
        ("scratch", "all", 0),
        ("encoder", "all", 0),
    ]
    with Path("few.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"way": "cut sh')
    bench.done.clear()
    run(bench, monkeypatch, *some, "--seeds", "2")
    assert {seed for _, _, seed in bench.done} == {1}
    table = capsys.readouterr().out
    assert "| 10 | scratch | 30.00 +- 0.00 | 50.00 +- 0.00 | 2 |" in table
    assert "| 10 | K+1 | 10.50 +- 0.71 | 50.00 +- 0.00 | 2 |" in table
    bench.done.clear()
    run(bench, monkeypatch, *some, "--seeds", "2")
    assert bench.done == []
    with pytest.raises(SystemExit):
        run(bench, monkeypatch, "--ways", "magic")
    run(bench, monkeypatch, *some, "--seeds", "1", "--layer-decay", "0.5")
    assert ("K+1", 10, 0) not in bench.done and ("scratch", 10, 0) in bench.done
