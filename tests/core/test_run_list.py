"""Listings of runs, and runs named by their numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import advkit
from advkit.core import run_list
from advkit.core.errors import BusyError, ConfigError
from advkit.core.runs import RunFolder, remove
from advkit.evaluation.result import EvaluationResult
from advkit.evaluation.settings import Evaluation

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0" / "finished"


def put(number: int, command: str = "attack", **environment: str) -> Path:
    path = Path("runs") / f"{number:05d}-{command}-digits"
    shutil.copytree(GOLDEN / command, path)
    if environment:
        (path / "env.json").write_text(json.dumps(environment), encoding="utf-8")
    return path


def test_the_newest_is_first_and_a_damaged_folder_is_named():
    put(1, started="2026-01-02T00:00:00+00:00")
    put(2, started="2026-01-03T00:00:00+00:00")
    put(3, "certify", started="2026-01-01T00:00:00+00:00")
    (Path("runs") / "00004-attack").mkdir()
    Path("runs/other").mkdir()
    Path("runs/notes.txt").write_text("mine", encoding="utf-8")
    rows = advkit.runs()
    assert [row.number for row in rows] == [2, 1, 3, 4]
    assert [row.state for row in rows] == ["finished"] * 3 + ["damaged"]
    for name in ("resolved.json", "env.json", "result.json"):
        (Path("runs/00002-attack-digits") / name).write_bytes(b'{"half')
        assert advkit.runs()[-2].state == "damaged" or advkit.runs()[-1].state == "damaged"
    assert sum(row.state == "damaged" for row in advkit.runs()) == 2


def test_the_filters():
    put(1)
    put(2, "certify")
    result = json.loads((Path("runs/00001-attack-digits") / "result.json").read_text(encoding="utf-8"))
    for check in result["checks"]:
        check["verdict"] = "doubt"
    path = put(3)
    (path / "result.json").write_text(json.dumps(result), encoding="utf-8")

    def numbers(**asked):
        return sorted(row.number for row in advkit.runs(**asked))

    assert numbers() == [1, 2, 3]
    assert numbers(command="certify") == [2] and numbers(command="cert") == []
    assert numbers(trust="doubted") == [3] and numbers(trust="trusted") == [1]
    assert numbers(model="TINY") == [1, 2, 3] and numbers(model="other") == []
    assert numbers(data="digits") == [1, 2, 3] and numbers(data="mnist") == []


def test_a_finished_run_says_what_its_result_says():
    result = EvaluationResult.load(GOLDEN / "attack")
    with RunFolder.open("attack", "digits", Evaluation(model="clf.pt"), None) as run:
        (before,) = advkit.runs()
        run.once(EvaluationResult, lambda: result)
        with pytest.raises(BusyError):
            remove(run.path)
    (row,) = advkit.runs()
    assert (before.state, before.found, before.trust) == ("unfinished", "", None)
    assert (row.state, row.found, row.trust) == ("finished", result.summary(), "trusted")
    assert (row.number, row.command, row.model, row.data) == (1, "attack", "clf.pt", "digits")
    assert EvaluationResult.load(1) == EvaluationResult.load("1") == result
    remove(row.path)
    assert advkit.runs() == [] and not row.path.exists()


def test_a_number_is_a_run_unless_it_is_a_path():
    path = put(12)
    assert run_list.find(12) == run_list.find("12") == run_list.find("00012") == run_list.find(path) == path
    Path("12").mkdir()
    assert run_list.find("12") == Path("12") and run_list.find(12) == path
    for name in ("13", 1, "no/such", "-12"):
        with pytest.raises(ConfigError) as fault:
            run_list.find(name)
        assert fault.value.code == "run-not-found"


def test_only_runs_are_removed():
    Path("mine").mkdir()
    with pytest.raises(ConfigError) as fault:
        remove(Path("mine"))
    assert fault.value.code == "run-not-found" and Path("mine").exists()
    Path("runs/00001-damaged").mkdir(parents=True)
    remove(Path("runs/00001-damaged"))
    assert list(Path("runs").iterdir()) == []


def test_a_listing_of_a_thousand_is_instant_and_imports_no_torch():
    for number in range(1, 1001):
        path = Path("runs") / f"{number:05d}-attack"
        path.mkdir(parents=True)
        (path / "resolved.json").write_text('{"command": "attack", "config": {"model": "a"}}', "utf-8")
        (path / "env.json").write_text('{"started": "2026-01-01"}', "utf-8")
        (path / "result.json").write_text("no result is read where there is a summary", "utf-8")
        (path / "summary.json").write_text('{"summary": "found", "trusted": true, "data": "digits"}', "utf-8")
    code = "import advkit, sys; assert len(advkit.runs()) == 1000 and 'torch' not in sys.modules"
    times = []
    for _ in range(3):
        begun = os.times()
        subprocess.run([sys.executable, "-c", code], check=True)
        ended = os.times()
        used = ended.children_user - begun.children_user + ended.children_system - begun.children_system
        times.append(used)
    assert min(times) < 1
