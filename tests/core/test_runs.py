"""Run folders against a plain model of them, and the results in them."""

import contextlib
import json
import math
import os
import platform
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Literal

import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from advkit.core import files, runs
from advkit.core.config import StrictModel
from advkit.core.errors import BusyError, ConfigError, DataError, OutputError, UserError
from advkit.core.progress import Progress
from advkit.core.runs import RunFolder
from advkit.core.stored import SummarisedResult


class Plan(StrictModel):
    steps: int = 3
    seed: int = 0


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_a_command_goes_on_with_its_own_run_or_begins_one(seed):
    """Against a list of what each run began with."""
    dice, known = random.Random(seed), []

    def some():
        return {name: dice.randrange(2) for name in ("model", "images") if dice.random() < 0.4}

    def others(run, inputs):
        return any(run["inputs"].get(name, value) != value for name, value in inputs.items())

    def refused(kind, *words, **how):
        with pytest.raises(kind) as caught:
            RunFolder.open(command, "a b/c", Plan(seed=number), inputs=inputs, resume=resume, **how)
        assert all(word in str(caught.value) for word in words)
        return caught.value.code

    for _ in range(30):
        command, number = dice.choice(["train", "attack"]), dice.randrange(2)
        inputs, resume, act = some(), dice.random() < 0.4, dice.choice(["open", "open", "work", "this"])
        run = dice.choice(known) if known else None
        out = Path("runs", run["name"]) if run else Path("new")
        if act == "open" or not run:
            wanted = (command, number, False, None)
            fitting = [
                run
                for run in known
                if (run["command"], run["seed"], run["finished"], run["open"]) == wanted
                and not others(run, inputs)
            ]
            if resume and not fitting:
                assert refused(ConfigError, command) == "nothing-to-resume"
                continue
            opened = RunFolder.open(command, "a b/c", Plan(seed=number), inputs=inputs, resume=resume)
            if not fitting:
                facts = {"command": command, "seed": number, "inputs": inputs, "finished": False}
                known.append({"name": f"{len(known) + 1:05d}-{command}-a-b-c", **facts})
                env = json.loads((opened.path / "env.json").read_text())
                assert env.items() >= {**runs.environment(), "argv": sys.argv}.items()
            run = (fitting or known)[-1]
            assert opened.path == Path("runs", run["name"])
            assert opened.resumed == bool(fitting) and not opened.finished
            run["open"] = opened
        elif act == "work" and run["open"]:
            if others(run, inputs):
                with pytest.raises(ConfigError, match=run["name"]):
                    run["open"].begin_with(**inputs)
                continue
            written = (out / "resolved.json").stat().st_ino
            run["open"].begin_with(**inputs)
            kept = (out / "resolved.json").stat().st_ino == written
            assert kept or not inputs.keys() <= run["inputs"].keys()
            run["inputs"] = {**run["inputs"], **inputs}
            if dice.random() < 0.4:
                run["open"].finish({"inputs": inputs})
                run["finished"] = True
                assert run["open"].result() == {"inputs": inputs}
            run["open"] = run["open"].__exit__(None, None, None)
        elif run["open"]:
            refused(BusyError, str(out), out=out)
        elif dice.random() < 0.5 and (
            (command, number) != (run["command"], run["seed"]) or others(run, inputs)
        ):
            assert refused(ConfigError, str(out), out=out) == "run-differs"
        else:
            command, number, inputs = run["command"], run["seed"], run["inputs"]
            with RunFolder.open(command, "x", Plan(seed=number), out, inputs=inputs, resume=resume) as opened:
                assert opened.resumed and opened.finished == run["finished"] and opened.path == out
        for run in known:
            kept = files.read_json(Path("runs", run["name"], "resolved.json"))
            config = {"steps": 3, "seed": run["seed"]}
            assert kept == {"command": run["command"], "config": config, "inputs": run["inputs"]}
    resume = True
    assert refused(ConfigError, "new", out=Path("new")) == "nothing-to-resume"


class Trap:
    """Makes a folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def bits(state):
    return {name: (value.dtype, value.numpy().tobytes()) for name, value in state.items() if name != "step"}


@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_dies_again_and_again_goes_on_from_its_last_sound_state(seed):
    """Against a list of its rows and its last two states."""
    dice, out = random.Random(seed), Path("a", "r")
    lines, rows, states, step = out / "metrics.jsonl", [], [], 0
    run = RunFolder.open("train", "x", Plan(), out)
    assert not run.resumed and run.load_state() is None and run.history() == []
    for _ in range(8):
        for _ in range(dice.randrange(3)):
            for _ in range(dice.randrange(4)):
                rows.append({"step": step, "loss": dice.choice([1.5, -math.inf, "naïve", 1e-9])})
                run.metrics(**rows[-1])
                assert run.history() == rows
                step += 1
            if dice.random() < 0.7:
                noise = torch.randint(-(2**15), 2**15, (8,), generator=torch.Generator().manual_seed(step))
                weights = noise.to(torch.int16).view(dice.choice([torch.float32, torch.float64, torch.int16]))
                states = [*states, {"step": step - 1, "weights": weights}][-2:]  # any bits, NaN among them
                run.save_state(states[-1])
        run.__exit__(None, None, None)
        if rows and rows[-1]["step"] > max((state["step"] for state in states), default=-1):
            content = lines.read_bytes()  # what came before a state was on the disk by then
            gone = dice.randrange(len(content.splitlines(keepends=True)[-1]))  # which leaves a line begun
            lines.write_bytes(content[: len(content) - gone])
            if gone > 1:
                rows.pop()
        spoil = dice.choice([None, None, None, "cut", "noise", "empty", "missing", "code", "bit"])
        spoilt = runs.STATES[: len(states)][: dice.choice([1, 1, 2])] if spoil else ()
        for path in (out / name for name in spoilt):
            content = path.read_bytes()
            path.unlink()
            if spoil == "code":
                torch.save({"step": 0, "weights": Trap()}, path)
            elif spoil != "missing":
                place = dice.randrange(8 * (len(content) - 73))  # what comes after is the digest
                flipped = bytearray(content)
                flipped[place // 8] ^= 1 << place % 8
                path.write_bytes(
                    {"cut": content[:100], "noise": b"noise", "empty": b"", "bit": flipped}[spoil]
                )
        states = states[: len(states) - len(spoilt)]
        run = RunFolder.open("train", "x", Plan(), out, resume=True)
        assert run.resumed
        state = run.load_state("step")
        assert (state is None) == (not states) and not Path("trapped").exists()
        step = 0
        if state is not None:
            assert state["step"] == states[-1]["step"] and bits(state) == bits(states[-1])
            with pytest.raises(ConfigError) as caught:
                run.load_state("step", "optimiser")
            assert str(out) in str(caught.value) and caught.value.code == "run-differs"
            step = state["step"] + 1
        rows = [row for row in rows if row["step"] < step]
        assert run.history() == rows
        if spoilt and states:  # only the older file is left, and stays beside the new one
            run.save_state(state)
            states *= 2 if spoil == "missing" else 1
    run.finish({"loss": 1.5})
    assert run.finished and not list(out.glob("state*"))
    run.__exit__(None, None, None)


def test_where_others_write_nothing_is_written(tmp_path):
    """As in all processes but the first of those that share the work."""
    with RunFolder(tmp_path, None, resumed=False) as run:
        run.begin_with(model="a")
        run.metrics(1, loss=2.0)
        run.save_state({"step": 1})
        run.finish({})
        (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
        assert run.load_state() is None
        assert run.history() == [{"step": 1}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_going_on_takes_the_lock_once_and_keeps_it(monkeypatch):
    """Taken, released and taken again, it let two identical starts refuse each other."""
    taken, lock = [], FileLock.acquire
    for resumed in (False, True):
        monkeypatch.setattr(FileLock, "acquire", lambda *me, **how: (taken.append(how), lock(*me, **how))[1])
        with RunFolder.open("attack", "toy", Plan()) as run:
            assert run.resumed == resumed and len(taken) == 1 + resumed


def test_runs_that_cannot_go_on_are_passed_over_and_named_unless_a_process_works_in_them():
    said = []
    progress = SimpleNamespace(say=said.append)
    with RunFolder.open("train", "x", Plan(), progress=progress) as busy:
        with RunFolder.open("train", "x", Plan(), progress=progress) as linked:
            assert linked.path != busy.path and not said
        (linked.path / ".lock").unlink()
        (linked.path / ".lock").symlink_to("elsewhere")
        with RunFolder.open("train", "x", Plan(), progress=progress) as damaged:
            assert [str(linked.path) in one for one in said] == [True]
        (damaged.path / "resolved.json").write_text("{")
        with RunFolder.open("train", "x", Plan(), progress=progress) as new:
            assert new.path.name.startswith("00004-")
            assert [str(damaged.path) in one for one in said] == [False, True, False]


def test_a_number_that_another_process_has_just_taken_is_passed_over(monkeypatch):
    Path("runs", "00001-train-x").mkdir(parents=True)
    Path("runs", "notes").touch()
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(()))
    with RunFolder.open("train", "x", Plan()) as run:
        assert run.path.name == "00002-train-x"


def test_what_was_killed_while_it_began_begins_again():
    out = Path("new")
    out.mkdir()
    for half in (".lock", ".resolved.json.0123abcd.tmp"):
        (out / half).write_text("{")
    with RunFolder.open("some", "x", Plan(), out):
        assert {path.name for path in out.iterdir()} == {".lock", "resolved.json", "env.json"}
    other = Path("other")
    other.mkdir()
    (other / ".notes.tmp").write_text("mine")
    with pytest.raises(OutputError):
        RunFolder.open("some", "x", Plan(), other)
    assert [path.name for path in other.iterdir()] == [".notes.tmp"]


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    for name in ("mine", "locked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".lock").touch()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError):
        RunFolder.open("train", "x", Plan(), tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {".lock", "thesis.txt"}
    with pytest.raises(ConfigError):
        RunFolder.open("train", "x", Plan(), tmp_path / "locked", resume=True)
    with RunFolder.open("train", "x", Plan(), tmp_path / "locked") as run:
        assert not run.resumed
    with pytest.raises(OutputError, match="below"):
        RunFolder.open("train", "x", Plan(), tmp_path / "mine" / "thesis.txt" / "below")
    Path("runs").touch()
    with pytest.raises(OutputError, match="runs"):
        RunFolder.open("train", "x", Plan())


def test_what_differs_is_listed(tmp_path):
    with RunFolder.open("train", "x", Plan(), tmp_path / "r", inputs={"plan": {"eps": (1, 2)}}) as run:
        run.begin_with(plan={"eps": [1, 2]})
        with pytest.raises(ConfigError):
            run.begin_with(plan={"eps": [1, 3]}, images="b")
        run.begin_with(answers=[1.0, -8.0])
        run.begin_with(answers=[1.2, -8.2])  # as another device rounds them
        for other in ([1.0, -8.3], [1.0], [1.0, -8.0, 0.0], "x"):
            with pytest.raises(ConfigError):
                run.begin_with(answers=other)
    with pytest.raises(ConfigError, match="steps"):
        RunFolder.open("train", "x", Plan(steps=9), tmp_path / "r")


def test_names_that_are_no_text_are_known_again_as_older_versions_wrote_them():
    class Named(StrictModel):
        model: str

    given = {"command": "attack", "config": {"model": "clf\udcfc.pt"}, "inputs": {}}
    for folder in (Path("out"), Path("runs/00001-attack-toy")):
        folder.mkdir(parents=True)
        (folder / "resolved.json").write_text(json.dumps(given), encoding="utf-8")
        out = folder if folder.name == "out" else None
        with RunFolder.open("attack", "toy", Named(model="clf\udcfc.pt"), out) as run:
            assert run.resumed and run.path == folder


def test_a_second_process_is_told_to_wait_until_the_first_is_killed(tmp_path):
    code = (
        "import fcntl, sys\n"
        "lock = open('r/.lock', 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('open', flush=True)\nsys.stdin.read()\n"
    )
    with RunFolder.open("train", "x", Plan(), tmp_path / "r"):
        pass
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    ) as child:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(BusyError):
            RunFolder.open("train", "x", Plan(), tmp_path / "r")
        child.kill()
    with RunFolder.open("train", "x", Plan(), tmp_path / "r") as after:
        assert after.resumed


@pytest.mark.parametrize("processor", ["", "abacus"])
def test_the_environment_names_what_matters(monkeypatch, processor):
    monkeypatch.setattr(platform, "processor", lambda: processor)
    found = runs.environment()
    assert found["torch"] in torch.__version__ and found["cores"] == str(os.cpu_count())
    assert found["processor"] == (processor or platform.machine()) and found["processes"] == "1"
    said = datetime.fromisoformat(runs.now())
    assert said.tzinfo == UTC and said.microsecond == 0
    assert abs((datetime.now(UTC) - said).total_seconds()) < 60


class Toy(SummarisedResult):
    """A result."""

    command: ClassVar[str] = "toy"
    schema_name: Literal["advkit/toy"] = Field("advkit/toy", alias="schema")
    value: float

    def summary(self) -> str:
        return f"the value is {self.value:g}"


class Later(Toy):
    newest: ClassVar[int] = 3
    version: int = 3


class Listed(Toy):
    images: list[dict[str, int]] = []


def test_a_data_frame_has_a_row_for_each_image_or_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    row = {"version": 1, "schema": "advkit/toy", "value": 2.5}
    assert Toy(value=2.5).to_dataframe() == [row] == [Toy(value=2.5).to_dict()]
    assert Listed(value=2.5, images=[{"id": 3}, {"id": 4}]).to_dataframe() == [{"id": 3}, {"id": 4}]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError):
        Toy(value=2.5).to_dataframe()


def test_work_is_done_once(tmp_path):
    said, done = [], []

    class Telling(Progress):
        def say(self, message):
            said.append(message)

    def work():
        done.append(1)
        return Toy(value=len(done))

    for _ in range(3):
        with RunFolder.open("train", "x", Plan(), tmp_path / "r", progress=Telling()) as run:
            assert run.once(Toy, work) == Toy(value=1)
    assert len(done) == 1 and len(said) == 2 and all(str(tmp_path / "r") in line for line in said)
    assert Toy.load(tmp_path / "r") == Toy.load(str(tmp_path / "r" / "result.json")) == Toy(value=1)
    assert str(Toy(value=1)) == "the value is 1" and Toy(value=1).sentence == "The value is 1."
    for missing in (tmp_path, tmp_path / "nothing.json"):
        with pytest.raises(DataError):
            Toy.load(missing)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 4) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


@settings(max_examples=100)
@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    version=JSON,
    other=JSON,
    kind=st.sampled_from([Toy, Later]),
)
def test_results_come_back_and_others_are_refused(value, version, other, kind):
    result = kind(value=value)
    assert kind.from_json(result.to_json()) == result
    assert json.loads(result.to_json()) == result.as_values()
    assert result.as_values() == {"version": kind.newest, "schema": "advkit/toy", "value": value}
    whole = result.as_values()
    for wrong in (json.dumps(other), result.to_json()[:-1], json.dumps({**whole, "schema": other})):
        with pytest.raises(DataError):
            kind.from_json(wrong)
    changed = json.dumps({**whole, "version": version})
    if type(version) is int and version <= kind.newest:
        assert kind.from_json(changed).version == version
    else:
        with (
            contextlib.suppress(UserError)
            if type(version) in (bool, float, str)
            else pytest.raises(UserError)
        ):
            kind.from_json(changed)
    with pytest.raises(DataError):
        kind.from_json(json.dumps({**whole, "version": kind.newest + 1}))
    del whole["version"]
    assert kind.from_json(json.dumps(whole)) == result


def test_what_a_killed_process_half_wrote_is_removed(tmp_path):
    with RunFolder.open("attack", "toy", StrictModel(), tmp_path / "run") as run:
        half, whole = run.path / ".state.pt.0123abcd.tmp", run.path / "kept.tmp"
        half.write_bytes(b"x")
        whole.write_bytes(b"x")
    with RunFolder.open("attack", "toy", StrictModel(), tmp_path / "run"):
        assert not half.exists() and whole.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_and_keeps_its_place(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError):  # nobody reads, and nothing waits
        files.write_text(pipe, "lost")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write_text(pipe, "found")
        assert os.read(reader, 100) == b"found" and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]
    finally:
        os.close(reader)
