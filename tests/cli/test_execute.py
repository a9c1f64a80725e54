from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from advkit.cli import execute


def _result(answer):
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def test_only_given_flags_count_and_all_types_arrive(advkit):
    got = _result(
        advkit(
            *("fake", "--model", "clf.pt", "--eps", "8/255", "--attack", "a, b", "--labels", "100"),
            *("--scratch", "--set", "inner.deep.k=[1, 2]", "--set", "steps=5", "--json", "-"),
        )
    )
    assert got["config"] == {
        "model": "clf.pt",
        "steps": 5,
        "eps": pytest.approx(8 / 255),
        "norm": "linf",
        "attack": ["a", "b"],
        "beside": [],
        "labels": 100,
        "min_robust": None,
        "scratch": True,
        "inner": {"deep": {"k": [1, 2]}},
    }
    assert got["device"] == "auto" and got["dry_run"] is False


def test_operands_need_no_flag(advkit):
    got = _result(advkit("fake", "one", "--model", "x", "two, three", "--json", "-"))
    assert got["config"]["beside"] == ["one", "two, three"]


def test_a_flag_can_switch_off(advkit):
    words = ("fake", "--model", "x", "--set", "scratch=true", "--json", "-")
    assert _result(advkit(*words))["config"]["scratch"] is True
    assert (
        _result(advkit("fake", "--model", "x", "--no-scratch", "--json", "-"))["config"]["scratch"] is False
    )


def test_context_flags(advkit):
    got = _result(advkit("fake", "--model", "x", "--device", "cpu", "--dry-run", "--json", "-"))
    assert got["device"] == "cpu" and got["dry_run"] is True


def test_json_file_and_report_and_last_line(advkit, tmp_path):
    answer = advkit("fake", "--model", "<b>&", "--out", "run", "--json", "result.json")
    assert answer.exit_code == 0, answer.output
    assert json.loads((tmp_path / "result.json").read_text())["config"]["model"] == "<b>&"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "advkit fake --model &#39;&lt;b&gt;&amp;&#39; --out run --json result.json" in page
    assert "data:image/png;base64,iVBOR" in page
    lines = answer.stdout.splitlines()
    assert lines[-1] == "run"
    assert "  run/report.html" in lines
    assert [path.name for path in tmp_path.glob("*.tmp")] == []


def test_json_replaces_json_but_nothing_else(advkit, tmp_path):
    where = tmp_path / "f"
    where.write_text('{"old": 1}')
    assert advkit("fake", "--model", "x", "--json", "f").exit_code == 0
    where.write_bytes(b"\x80weights")
    answer = advkit("fake", "--model", "x", "--json", "f")
    assert answer.exit_code == 2 and "is not JSON" in answer.stderr
    assert where.read_bytes() == b"\x80weights"
    assert "pretending" not in answer.stderr  # said before the work
    assert advkit("fake", "--model", "x", "--json", "f", "--overwrite").exit_code == 0
    assert "is a folder" in advkit("fake", "--model", "x", "--json", ".").stderr


def test_a_long_command_to_copy_is_not_broken(advkit):
    answer = advkit("fake", "--model", "x")
    assert f"  advkit fake --model {'very-long-name-' * 8}" in answer.stdout.splitlines()


def test_a_run_of_a_recipe(advkit, tmp_path):
    (tmp_path / "mine.toml").write_text('command = "fake"\nmodel = "x"\nsteps = 2\ninner.k = 1\n')
    got = _result(advkit("run", "mine.toml", "--set", "inner.k=2", "--json", "-"))
    assert got["config"]["steps"] == 2
    assert got["config"]["inner"] == {"k": 2}
    assert advkit("run", "mine.toml", "--out", "folder").exit_code == 0
    assert (tmp_path / "folder" / "recipe.toml").read_bytes() == (tmp_path / "mine.toml").read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_for_json_is_not_read(tmp_path, monkeypatch):
    """It has no end before its writer's, and a device such as /dev/full has none at all."""
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read"))
    execute._refuse_to_replace(tmp_path / "pipe", False)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="this system has no /dev/stdout")
@pytest.mark.parametrize("mode", ["w", "a"])
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_json_for_a_stream_goes_on_where_a_log_ends(process, tmp_path, name, mode):
    log = tmp_path / "log"
    log.write_text("earlier lines, no JSON\n")
    with log.open(mode) as stream:
        work = process("fake", "--model", "x", "--json", name, stdout=stream)
        _, said = work.communicate(timeout=60)
    assert work.returncode == 0, said
    text = log.read_text()
    assert text.startswith("earlier lines") is (mode == "a")
    value, end = json.JSONDecoder().raw_decode(text, text.index("{"))
    assert value["config"]["model"] == "x" and text[end:].strip()
