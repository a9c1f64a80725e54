import errno
import json
import subprocess
import sys

import pytest
import torch

from advkit import files, runs
from advkit.config import StrictModel
from advkit.errors import BusyError, ConfigError, OutputError
from advkit.runs import RunFolder


class Plan(StrictModel):
    steps: int = 3
    seed: int = 0


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_numbers_count_up_and_an_unfinished_run_goes_on():
    with RunFolder.open("train", "a b/c", Plan()) as one:
        assert one.path.name == "00001-train-a-b-c" and not one.resumed
    with RunFolder.open("train", "a b/c", Plan()) as again:
        assert again.path == one.path and again.resumed
        again.finish({"done": True})
    with RunFolder.open("train", "a b/c", Plan()) as next_one:
        assert next_one.path.name.startswith("00002") and not next_one.resumed
    with RunFolder.open("train", "a b/c", Plan(seed=1)) as other:
        assert other.path.name.startswith("00003")


def test_changed_parameters_are_listed(tmp_path):
    with RunFolder.open("train", "x", Plan(), tmp_path / "r"):
        pass
    with pytest.raises(ConfigError, match="steps was 3, is now 9"):
        RunFolder.open("train", "x", Plan(steps=9), tmp_path / "r")
    with pytest.raises(ConfigError, match="holds a train run"):
        RunFolder.open("attack", "x", Plan(), tmp_path / "r")
    with RunFolder.open("train", "x", Plan(), tmp_path / "r") as same:
        assert same.resumed


def test_a_folder_is_for_what_the_run_began_with(tmp_path):
    def begin(out=None, **inputs):
        return RunFolder.open("train", "x", Plan(), out and tmp_path / out, inputs=inputs)

    with begin(model="a", images="b") as one:
        pass
    with begin(model="a", images="c") as other:
        assert other.path != one.path
    with begin(model="a", images="b") as again:
        assert again.path == one.path and again.resumed
        again.begin_with(plan={"eps": (1, 2)})
        again.begin_with(model="a", plan={"eps": [1, 2]})
        with pytest.raises(ConfigError, match="did not begin with the same plan; choose another folder"):
            again.begin_with(model="a", plan={"eps": [1, 3]})
        again.finish({})
    with pytest.raises(ConfigError, match="did not begin with the same model and images"):
        RunFolder.open("train", "x", Plan(), one.path, inputs={"model": "A", "images": "B"})
    resolved = json.loads((one.path / "resolved.json").read_text())
    assert resolved["inputs"] == {"model": "a", "images": "b", "plan": {"eps": [1, 2]}}
    with RunFolder.open("train", "x", Plan(), one.path) as finished:  # the lock was let go of
        assert finished.finished


def test_resume_wants_something_to_resume(tmp_path):
    with pytest.raises(ConfigError, match="holds no run to resume"):
        RunFolder.open("train", "x", Plan(), tmp_path / "r", resume=True)
    with pytest.raises(ConfigError, match="no unfinished train run"):
        RunFolder.open("train", "x", Plan(), resume=True)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="holds other files"):
        RunFolder.open("train", "x", Plan(), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_second_process_is_told_to_wait(tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from advkit.config import StrictModel\n"
        "from advkit.runs import RunFolder\n"
        "class Plan(StrictModel):\n    steps: int = 3\n    seed: int = 0\n"
        "with RunFolder.open('train', 'x', Plan(), Path('r')):\n"
        "    print('open', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    ) as child:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(BusyError, match="another process is working in"):
            RunFolder.open("train", "x", Plan(), tmp_path / "r")
        child.kill()
    with RunFolder.open("train", "x", Plan(), tmp_path / "r") as after:  # kill -9 leaves no lock behind
        assert after.resumed


def test_state_and_metrics_agree_after_a_crash(tmp_path):
    with RunFolder.open("train", "x", Plan(), tmp_path / "r") as run:
        for step in (1, 2):
            run.metrics(step, loss=step / 2)
        run.save_state({"step": 2, "weights": torch.arange(3)})
        run.metrics(3, loss=9.0)
    with (tmp_path / "r" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with RunFolder.open("train", "x", Plan(), tmp_path / "r") as run:
        state = run.load_state()
        assert state["step"] == 2 and state["weights"].tolist() == [0, 1, 2]
        run.metrics(3, loss=1.5)
        assert [row["step"] for row in run.history()] == [1, 2, 3]
        assert run.history()[2]["loss"] == 1.5
        run.finish({"loss": 1.5})
        assert run.finished and run.result() == {"loss": 1.5}
    assert not (tmp_path / "r" / "state.pt").exists()
    assert json.loads((tmp_path / "r" / "env.json").read_text())["torch"] in torch.__version__


@pytest.mark.parametrize("spoil", ["cut", "noise", "missing"])
def test_where_the_last_state_is_spoiled_the_one_before_counts(tmp_path, spoil):
    with RunFolder.open("train", "x", Plan(), tmp_path / "r") as run:
        for step in (1, 2, 3):
            run.metrics(step, loss=step / 2)
            run.save_state({"step": step, "weights": torch.arange(step)})
    last = tmp_path / "r" / "state.pt"
    if spoil == "missing":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:100] if spoil == "cut" else b"noise")
    with RunFolder.open("train", "x", Plan(), tmp_path / "r") as run:
        assert run.load_state()["weights"].tolist() == [0, 1]
        assert [row["step"] for row in run.history()] == [1, 2]
        run.finish({})
    assert not list((tmp_path / "r").glob("state*"))


def test_a_crash_while_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    files.write_text(target, "old")
    with pytest.raises(RuntimeError), files.atomic(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOTDIR])
def test_what_the_disk_refuses_is_one_sentence(number, tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*; .*--out"), files.writing(tmp_path / "x"):
        raise OSError(number, "no")


def test_an_unknown_fault_of_the_disk_is_not_hidden(tmp_path):
    with pytest.raises(OSError), files.writing(tmp_path):
        raise OSError(errno.EIO, "input/output error")


def test_environment_names_what_matters():
    assert {"advkit", "torch", "python", "platform", "cores"} <= runs.environment().keys()
