"""``advkit runs``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from advkit.evaluation.comparison.compare import Source
from advkit.evaluation.gate.judge import judge
from advkit.evaluation.gate.settings import Policy
from advkit.evaluation.result import EvaluationResult

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0" / "finished"


@pytest.fixture
def put(advkit):
    for number, command in enumerate(("attack", "certify"), 1):
        shutil.copytree(GOLDEN / command, Path("runs") / f"{number:05d}-{command}")
    Path("runs/00003-attack").mkdir()


def listed(advkit, *words):
    return json.loads(advkit("runs", *words, "--json", "-").stdout)


def test_a_listing_names_what_is_damaged(advkit, put):
    found = listed(advkit)
    assert sorted(row["number"] for row in found["runs"]) == [1, 2]
    assert [row["number"] for row in found["damaged"]] == [3]
    assert "runs/00003-attack" in advkit("runs").output
    assert [row["number"] for row in listed(advkit, "--command", "attack")["runs"]] == [1]
    assert listed(advkit, "--trust", "doubted")["runs"] == []
    assert listed(advkit, "--model", "nobody")["runs"] == listed(advkit, "--data", "mnist")["runs"] == []


def test_one_run_is_shown(advkit, put):
    answer = advkit("runs", "show", "1", "--json", "-")
    found = json.loads(answer.stdout)
    assert (found["number"], found["command"], found["config"]["model"]) == (1, "attack", "tiny-hard")
    assert "runs/00001-attack/result.json" in found["files"]
    assert advkit("runs", "show", "3").exit_code == 2
    assert advkit("runs", "show", "4").exit_code == 2


def test_runs_are_removed_all_or_none(advkit, put):
    assert advkit("runs", "rm", "1", "9").exit_code == 2
    assert advkit("runs", "rm", "1", "runs/00001-attack").exit_code == 2
    assert listed(advkit)["runs"][1:]
    assert advkit("runs", "rm", "1", "3").exit_code == 0
    assert [row["number"] for row in listed(advkit)["runs"]] == [2] and listed(advkit)["damaged"] == []
    assert listed(advkit, "--data", "nothing")["runs"] == []


def test_a_run_becomes_a_policy(advkit, put):
    assert advkit("gate", "init", "1").exit_code == 0
    (asked,) = Policy.load(Path("policy.toml")).require
    result = EvaluationResult.load(1)
    assert (asked.norm, asked.eps, asked.points) == (result.threat.norm, result.threat.eps, 3)
    assert 0 <= result.interval.low - asked.robust < 0.001 and asked.baseline == "runs/00001-attack"
    config = json.loads(Path("runs/00001-attack/resolved.json").read_text("utf-8"))["config"]
    measured = asked.measuring()
    assert {key: measured[key] for key in ("n", "seed")} == {key: config[key] for key in ("n", "seed")}
    assert list(measured["attack"]) == config["attack"] and measured["parameters"] == config["parameters"]
    found = judge(asked, Source.open(1), Source.open(asked.baseline))
    assert found[0].bar == "robust" and found[0].passed and found[-1].passed
    assert advkit("gate-init", "1").exit_code == 2
    assert advkit("gate-init", "1", "--overwrite").exit_code == 0
    assert advkit("gate-init", "2", "other.toml").exit_code == 2
