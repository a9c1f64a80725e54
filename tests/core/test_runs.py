"""Run folders against a plain model of them, and the results in them."""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
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


class Numbered(RuleBasedStateMachine):
    """Which folder a command gets, against a list of what each run was begun with."""

    def __init__(self):
        super().__init__()
        self.root, self.before = Path(tempfile.mkdtemp()), Path.cwd()
        os.chdir(self.root)
        self.known = []  # of each folder, by number

    def teardown(self):
        for run in self.known:
            self.close(run)
        os.chdir(self.before)
        shutil.rmtree(self.root)

    def close(self, run):
        if run["open"]:
            run["open"].__exit__(None, None, None)
        run["open"] = None

    COMMANDS, SEEDS = st.sampled_from(["train", "attack"]), st.integers(0, 1)
    INPUTS = st.dictionaries(st.sampled_from(["model", "images"]), st.integers(0, 1))

    @rule(command=COMMANDS, seed=SEEDS, inputs=INPUTS, resume=st.booleans())
    def open(self, command, seed, inputs, resume):
        fitting = [
            run
            for run in self.known
            if (run["command"], run["seed"], run["finished"], run["open"]) == (command, seed, False, None)
            and all(run["inputs"].get(name, value) == value for name, value in inputs.items())
        ]
        if resume and not fitting:
            with pytest.raises(ConfigError):
                RunFolder.open(command, "a b/c", Plan(seed=seed), inputs=inputs, resume=True)
            return
        run = RunFolder.open(command, "a b/c", Plan(seed=seed), inputs=inputs, resume=resume)
        if not fitting:
            facts = {"command": command, "seed": seed, "inputs": inputs, "finished": False}
            self.known.append({"name": f"{len(self.known) + 1:05d}-{command}-a-b-c", **facts})
            fitting = self.known
            env = json.loads((run.path / "env.json").read_text())
            assert env.items() >= {**runs.environment(), "argv": sys.argv}.items()
        assert run.path == Path("runs", fitting[-1]["name"])
        assert run.resumed == (fitting is not self.known) and not run.finished
        fitting[-1]["open"] = run

    @precondition(lambda self: any(run["open"] for run in self.known))
    @rule(data=st.data(), inputs=INPUTS, finish=st.booleans())
    def work(self, data, inputs, finish):
        run = data.draw(st.sampled_from([run for run in self.known if run["open"]]))
        if any(run["inputs"].get(name, value) != value for name, value in inputs.items()):
            with pytest.raises(ConfigError, match=run["name"]):
                run["open"].begin_with(**inputs)
            return
        written = (run["open"].path / "resolved.json").stat().st_ino
        run["open"].begin_with(**inputs)
        kept = (run["open"].path / "resolved.json").stat().st_ino == written
        assert not (inputs.keys() <= run["inputs"].keys()) or kept
        run["inputs"] = {**run["inputs"], **inputs}
        if finish and not run["finished"]:
            run["open"].finish({"inputs": inputs})
            run["finished"] = True
            assert run["open"].result() == {"inputs": inputs}
        self.close(run)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), command=COMMANDS, seed=SEEDS, inputs=INPUTS, resume=st.booleans())
    def open_this(self, data, command, seed, inputs, resume):
        run = data.draw(st.sampled_from(self.known))
        others = any(run["inputs"].get(name, value) != value for name, value in inputs.items())
        fault = None
        if run["open"]:
            fault = BusyError
        elif (command, seed) != (run["command"], run["seed"]) or others:
            fault = ConfigError
        with pytest.raises(fault, match=run["name"]) if fault else contextlib.nullcontext():
            opened = RunFolder.open(
                command, "x", Plan(seed=seed), Path("runs", run["name"]), inputs=inputs, resume=resume
            )
        if not fault:
            assert opened.resumed and opened.finished == run["finished"]
            run["open"] = opened
            self.close(run)

    @invariant()
    def what_is_kept(self):
        for run in self.known:
            kept = files.read_json(Path("runs", run["name"], "resolved.json"))
            config = {"steps": 3, "seed": run["seed"]}
            assert kept == {"command": run["command"], "config": config, "inputs": run["inputs"]}


STATEFUL = settings(max_examples=20, stateful_step_count=12, deadline=None, derandomize=True, database=None)
TestNumbered = pytest.mark.filterwarnings("ignore::ResourceWarning")(Numbered.TestCase)
TestNumbered.settings = STATEFUL


def bits(state):
    return {name: (value.dtype, value.numpy().tobytes()) for name, value in state.items() if name != "step"}


class Going(RuleBasedStateMachine):
    """One run that dies again and again, against a list of its rows and its last two states."""

    def __init__(self):
        super().__init__()
        self.out = Path(tempfile.mkdtemp()) / "a" / "r"
        self.rows, self.states, self.step = [], [], 0
        self.run = RunFolder.open("train", "x", Plan(), self.out)
        assert not self.run.resumed and self.run.load_state() is None and self.run.history() == []

    def teardown(self):
        self.run.finish({"loss": 1.5})
        assert self.run.finished and not list(self.out.glob("state*"))
        self.run.__exit__(None, None, None)
        shutil.rmtree(self.out.parent.parent)

    @rule(loss=st.floats(allow_nan=False) | st.text(max_size=3))
    def note(self, loss):
        self.run.metrics(self.step, loss=loss)
        self.rows.append({"step": self.step, "loss": loss})
        self.step += 1

    @rule(seed=st.integers(0, 9), dtype=st.sampled_from([torch.float32, torch.float64, torch.int16]))
    def save(self, seed, dtype):
        noise = torch.randint(-(2**15), 2**15, (8,), generator=torch.Generator().manual_seed(seed))
        weights = noise.to(torch.int16).view(dtype)  # any bits at all, NaN and infinity among them
        state = {"step": self.step - 1, "weights": weights}
        self.states = [*self.states, (state, list(self.rows))][-2:]
        self.run.save_state(state)

    @rule(
        spoil=st.sampled_from([None, "cut", "noise", "empty", "missing", "bit"]),
        both=st.booleans(),
        cut=st.integers(0, 60),
        bit=st.floats(0, 1, exclude_max=True),
    )
    def die_and_go_on(self, spoil, both, cut, bit):
        lines = self.out / "metrics.jsonl"
        self.run.__exit__(None, None, None)
        if self.rows and lines.exists():
            content = lines.read_bytes()
            last = len(content.splitlines(keepends=True)[-1])
            gone = min(cut, last - 1)  # of a line at most, which it leaves begun
            lines.write_bytes(content[: len(content) - gone])
        for name in runs.STATES[: len(self.states)][: 2 if both else 1] if spoil else ():
            path = self.out / name
            if path.exists():
                content = path.read_bytes()
                if spoil == "missing":
                    path.unlink()
                else:
                    place = int(8 * (len(content) - 73) * bit)
                    flipped = bytearray(content)
                    flipped[place // 8] ^= 1 << place % 8
                    changed = {"cut": content[:100], "noise": b"noise", "empty": b"", "bit": flipped}
                    path.write_bytes(changed[spoil])
        if spoil:
            self.states = [] if both else self.states[:-1]
        self.run = RunFolder.open("train", "x", Plan(), self.out, resume=True)
        assert self.run.resumed
        state = self.run.load_state()
        assert (state is None) == (not self.states)
        self.step = 0
        if state is not None:
            assert bits(state) == bits(self.states[-1][0]) and state["step"] == self.states[-1][0]["step"]
            self.step = state["step"] + 1
        self.rows = list(self.states[-1][1]) if state is not None else []
        if spoil and self.states:  # only the older file is left
            self.run.save_state(state)

    @invariant()
    def the_history_is_what_was_noted(self):
        assert self.run.history() == self.rows


TestGoing = pytest.mark.filterwarnings("ignore::ResourceWarning")(Going.TestCase)
TestGoing.settings = STATEFUL


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


def test_a_number_that_another_process_has_just_taken_is_passed_over(monkeypatch):
    Path("runs", "00001-train-x").mkdir(parents=True)
    Path("runs", "notes").touch()
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(()))
    with RunFolder.open("train", "x", Plan()) as run:
        assert run.path.name == "00002-train-x"


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
    with pytest.raises(OutputError):
        RunFolder.open("train", "x", Plan(), tmp_path / "mine" / "thesis.txt" / "below")
    Path("runs").touch()
    with pytest.raises(OutputError):
        RunFolder.open("train", "x", Plan())


def test_what_differs_is_listed(tmp_path):
    with RunFolder.open("train", "x", Plan(), tmp_path / "r", inputs={"plan": {"eps": (1, 2)}}) as run:
        run.begin_with(plan={"eps": [1, 2]})
        with pytest.raises(ConfigError):
            run.begin_with(plan={"eps": [1, 3]}, images="b")
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


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
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
