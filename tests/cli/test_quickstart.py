"""The whole job, told again: what was measured stays as it was measured."""

from types import SimpleNamespace

import pytest
import torch

import advkit
from advkit.commands import quickstart
from advkit.core.context import Context
from advkit.report.outcome import Outcome, Picture, Table


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Runs the quickstart with commands that leave a result and do nothing else."""
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    images = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = advkit.evaluate(linear, (images, torch.arange(6) % 3), advkit.Threat("linf", 0.1), "pgd")

    def work(config, context):
        context.out.mkdir(parents=True, exist_ok=True)
        (context.out / "result.json").write_text("{}")
        picture = Picture("samples", context.out / "samples.png")
        return Outcome("done", tables=(Table("", (), ()),), pictures=(picture,), result=found.as_values())

    commands = dict.fromkeys(quickstart.COMMANDS, SimpleNamespace(summary="something", run=work))
    monkeypatch.setattr(quickstart, "COMMANDS", commands)
    monkeypatch.setattr(quickstart, "_publish", lambda folder, file: None)
    return lambda: quickstart.run(quickstart.Config(), Context(out=tmp_path)), found


def test_a_finished_one_tells_again_what_it_told(job, monkeypatch):
    run, _ = job
    first = run()
    monkeypatch.setattr("advkit.core.runs.now", lambda: "another day")
    again = run()
    assert again == first and again.result["seconds"] == first.result["seconds"] > 0


def test_the_verdict_of_trust_is_beside_both_accuracies(job):
    run, found = job
    outcome = run()
    assert sum(found.trust in sentence for sentence in outcome.sentences) == 2
    assert [row[-1] for row in outcome.tables[0].rows] == ["yes" if found.trusted else "doubted"] * 2
