"""The bench of generated data: what each source sees, and a table of its lines."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from advkit.gan.gaussian import gaussians

BENCH = Path(__file__).parents[2] / "recipes" / "bench" / "generated_data.py"
SMALL = ["--updates", "1", "--samples", "40", "--confidence", "0", "--test", "20", "--arch", "mlp"]


@pytest.fixture
def bench():
    """The script."""
    spec = importlib.util.spec_from_file_location("generated_data", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(bench, monkeypatch, *words):
    given = ["generated_data.py", "--data", "digits", "--out", "lines.jsonl", *words]
    monkeypatch.setattr(sys, "argv", given)
    bench.main()


def judged(model, data, threat, attack):
    """Instead of an attack."""
    return SimpleNamespace(clean_correct=9, robust_correct=3, n=len(data))


def test_gaussians_see_what_the_classifier_learns_and_nothing_else(bench, monkeypatch, capsys):
    seen, learned = [], []
    monkeypatch.setattr(bench, "gaussians", lambda data: seen.append(data) or gaussians(data))
    trained = bench.trained

    def noted(how, rest, held, *given):
        learned.append((how, rest, held))
        return trained(how, rest, held, *given)

    monkeypatch.setattr(bench, "trained", noted)
    monkeypatch.setattr(bench.advkit, "evaluate", judged)

    def found(generator, classifier, n, **said):
        """What an untrained classifier is sure of is nothing to wait for."""
        from advkit.gan.labelled import Labelled
        from advkit.gan.sample import sample

        images, latents = sample(generator, n, said["seed"])
        return Labelled(images, torch.arange(n) % 10, latents, n)

    monkeypatch.setattr(bench, "sample_labelled", found)
    words = ["--real", "60", "--seeds", "1", "--sources", "none,gaussian", "--set", "steps=1"]
    run(bench, monkeypatch, *SMALL, *words, "--objective", "pgd")
    (data,) = seen
    assert [how for how, _, _ in learned] == ["pgd", "standard", "pgd"]
    assert all(rest.fingerprint == data.fingerprint for _, rest, _ in learned)
    assert (len(data), len(learned[0][2])) == (50, 10)
    assert not set(data.ids.tolist()) & set(learned[0][2].ids.tolist())
    lines = [json.loads(line) for line in Path("lines.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["source"] for line in lines] == ["none", "gaussian"]
    assert all((line["tested"], line["clean"], line["robust"]) == (20, 9, 3) for line in lines)


def test_it_goes_on_where_it_stopped_and_says_what_failed(bench, monkeypatch, capsys):
    done = []

    def line(source, n, seed, options):
        done.append((source, n, seed))
        key = bench.key_of(source, n, seed, options)
        if source == "generator":
            return {**key, "fault": "it does not draw a 7"}
        return {**key, "clean": 90 + seed, "robust": 50 + 10 * seed, "tested": 100}

    monkeypatch.setattr(bench, "line", line)
    run(bench, monkeypatch, "--real", "100", "--seeds", "1")
    run(bench, monkeypatch, "--real", "100,all", "--seeds", "1")
    assert done == [(source, n, 0) for n in (100, "all") for source in bench.SOURCES]
    with Path("lines.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"data": "di')  # cut short
    run(bench, monkeypatch, "--real", "100", "--seeds", "2", "--sources", "none,generator")
    assert done[6:] == [("none", 100, 1), ("generator", 100, 1)]
    run(bench, monkeypatch, "--real", "100", "--seeds", "1", "--sources", "none", "--updates", "3")
    assert done[8:] == [("none", 100, 0)]  # other options are other lines
    with pytest.raises(SystemExit):
        run(bench, monkeypatch, "--sources", "nobody")
    said = capsys.readouterr().out
    assert "| 100 | none | 90.5 +- 0.7 | 55.0 % [44.7, 65.0], +- 7.1 | 2 | 100 |" in said
