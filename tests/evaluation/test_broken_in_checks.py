"""What sanity checks break counts after `cascade`, and only there."""

from unittest import mock

import pytest
import torch
from torch import nn

import advkit
from advkit.attacks.ensemble import Stage
from advkit.core import rng
from advkit.core.config import StrictModel
from advkit.core.journal import Journal
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.evaluation import evaluate
from advkit.evaluation.broken_in_checks import PREFIX
from advkit.evaluation.checks import ripples

LINF = Threat("linf", 0.05)


class Rippled(nn.Module):
    """Its gradient leads nowhere; that of its neighbourhood does."""

    def __init__(self):
        super().__init__()
        with rng.scope("cpu", 0, "rippled"):
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 4))

    def forward(self, x):
        return self.layers(x + 0.05 * (300 * x).sin())


@pytest.fixture(scope="module")
def rippled():
    model, images = Rippled().eval(), rng.uniform(torch.arange(40), (1, 8, 8))
    return model, (images, model(images).argmax(1))


def attacked(rippled, attack="cascade", **more):
    return advkit.evaluate(*rippled, LINF, attack, precision="float32", check_sample=0, **more)


@pytest.fixture
def short(monkeypatch):
    """A short cascade, of which the check looks at three images."""
    monkeypatch.setattr(evaluate, "plan", lambda *_: (Stage("pgd", "pgd", {"steps": 5}),))
    monkeypatch.setattr(ripples, "FEWEST", 3)


def late(result):
    return [stage for stage in result.stages if stage.name == f"{PREFIX}ripples/long"]


def test_what_a_check_breaks_counts_and_its_attack_goes_on(rippled, short):
    result = attacked(rippled, keep=True)
    (stage,) = late(result)
    before = result.stages[-2].correct_after
    assert stage == result.stages[-1] and stage.attacked == before > 3 and stage.broken > 1
    assert result.robust_correct == stage.correct_after == before - stage.broken
    model, (images, labels) = rippled
    fallen = torch.tensor([verdict.attack == stage.name for verdict in result.verdicts])
    assert int(fallen.sum()) == stage.broken
    assert (model(result.adversarial[fallen]).argmax(1) != labels[fallen]).all()
    assert LINF.contains(result.adversarial, images).all()
    assert not result.trusted
    cut = attacked(rippled, budget=6)
    (noted,) = set(cut.notes) - set(result.notes)
    assert late(cut)[0].attacked == 3 and stage.name in noted


def test_where_the_checks_break_all_there_is_nothing_to_doubt(rippled, short):
    result = advkit.evaluate(*rippled, Threat("linf", 0.2), precision="float32", check_sample=0)
    assert late(result) and result.robust_correct == 0 and result.trusted
    assert result.stages[0].correct_after > 3


def test_the_number_of_another_attack_is_its_own(rippled):
    result = attacked(rippled, "pgd")
    assert all(stage.attack == stage.name for stage in result.stages)
    assert result.robust_correct == result.stages[-1].correct_after
    assert any(check.name == "effort" and check.verdict == "doubt" for check in result.checks)


@pytest.mark.parametrize("lines", [1, 4])
def test_a_crash_while_checks_are_counted_changes_nothing(rippled, short, tmp_path, lines):
    """It happens at the first line of the check, and where its attack goes on."""

    def run(where):
        with RunFolder.open("attack", "toy", StrictModel(), tmp_path / where) as folder:
            return attacked(rippled, run=folder)

    class Crash(Exception):
        pass

    add, left = Journal.add, [lines]

    def adding(self, line):
        left[0] -= f'"{PREFIX}' in line
        if not left[0]:
            raise Crash
        add(self, line)

    whole = run("whole")
    with mock.patch.object(Journal, "add", adding), pytest.raises(Crash):
        run("cut")
    again = run("cut")
    assert late(whole) == late(again) and whole.verdicts == again.verdicts
    for name in ("verdicts.jsonl", "adversarial.bin"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
