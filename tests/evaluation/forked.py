"""Evaluations that share the work and end in unfortunate ways; forked, so that PyTorch is imported once.

Run by `test_crashes.py` as ``python forked.py FOLDER``, with a model and data in the folder.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

import advkit
from advkit.attacks.ensemble import Stage
from advkit.cli.app import app
from advkit.core import distributed, rng
from advkit.core.config import StrictModel
from advkit.core.errors import OutputError, UserError
from advkit.core.journal import Journal
from advkit.core.progress import SILENT
from advkit.core.runs import RunFolder
from advkit.data.data import Data
from advkit.evaluation import broken_in_checks, evaluate
from advkit.evaluation.broken_in_checks import PREFIX
from advkit.evaluation.checks import ripples
from advkit.evaluation.result import EvaluationResult


class Rippled(nn.Module):
    """A check breaks more of its images than PGD."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x + 0.05 * (300 * x).sin())


def evaluated(
    folder: Path | None, attack: str = "fgsm,pgd", *, rippled: bool = False, **more: object
) -> EvaluationResult:
    """Two attacks that both break some of 40 images."""
    images = rng.uniform(torch.arange(40), (1, 8, 8))
    with rng.scope("cpu", 0, "m"):
        model = Rippled().eval() if rippled else nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    data = Data("toy", "test", images, model(images).argmax(1), ("a", "b", "c"), torch.arange(40))
    told = {"parameters": {"pgd": {"steps": 5}} if "pgd" in attack else {}, "precision": "float32", **more}
    if folder is None:
        return advkit.evaluate(model, data, advkit.Threat("linf", 0.03), attack, **told)
    with RunFolder.open("attack", "toy", StrictModel(), folder) as run:
        return advkit.evaluate(model, data, advkit.Threat("linf", 0.03), attack, run=run, **told)


def processes(
    count: int, work: Callable[[int], object], at: dict[int, int], happens: object = None
) -> list[int]:
    """Exit codes of processes that share the work, as ``torchrun`` would start them. In place of writing the
    line of the so-many-th verdict something happens; a fault of the user ends a process with 2."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(count):
        if pid := os.fork():
            pids.append(pid)
            continue
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "TORCHELASTIC_RUN_ID": "test"}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        add, left = Journal.add, [at.get(rank, -1)]

        def adding(self, line):
            left[0] -= 1  # noqa: B023
            if left[0] == 0:  # noqa: B023
                happens(self, line)
            add(self, line)  # noqa: B023

        code = 70
        try:
            with mock.patch.object(Journal, "add", adding):
                if work is not command:
                    distributed.join()
                work(rank)
            code = 0
        except SystemExit as leaving:
            code = leaving.code
        except UserError as fault:
            sys.stdout.write(f"{type(fault).__name__}: {fault}\n")
            code = 2
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            os._exit(code)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def die(journal: Journal, line: str) -> None:
    """Half of the line is written."""
    with journal.path.open("a") as file:
        file.write(line[: len(line) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full(journal: Journal, line: str) -> None:
    raise OutputError("the disk of one is full")


def command(rank: int) -> None:
    """The command line, which joins the others by itself."""
    name = "two" if os.environ["WORLD_SIZE"] == "2" else "one"
    words = "attack --model clf.pt --data npz:toy.npz --norm linf --eps 0.01 --n 28 --attack noise,pgd"
    words += f" --set parameters.pgd.steps=5 --min-robust 0.99 --out {name} --json {name}.json"
    app.main(words.split())


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with mock.patch.object(broken_in_checks, "run_checks", lambda *_: ()):
        evaluated(None, "noise")  # imports what is needed, and leaves autograd to the forked

    def at(name: str) -> Callable[[int], object]:
        return lambda rank: evaluated(folder / name)

    def in_memory(rank: int) -> None:
        progress = mock.Mock(wraps=SILENT)
        with mock.patch.object(evaluate, "CLEAN_BATCH", 7):
            result = evaluated(None, keep=True, progress=progress)
        assert progress.task.called == (rank == 0)
        torch.save(result.adversarial, folder / f"{rank}-of-{distributed.world()}.pt")
        told = result.model_copy(update={"seconds": 0.0, "environment": {}, "cost": None})
        (folder / f"{rank}-of-{distributed.world()}.json").write_text(told.to_json())

    def counted(rank: int) -> None:
        short = (Stage("pgd", "pgd", {"steps": 5}),)
        with mock.patch.object(evaluate, "plan", lambda *_: short), mock.patch.object(ripples, "FEWEST", 3):
            result = evaluated(None, "cascade", rippled=True, check_sample=0)
        stage = result.stages[-1]
        assert stage.name.startswith(PREFIX) and stage.broken and stage.attacked > 3
        (folder / f"counted-{rank}-of-{distributed.world()}").write_text(f"{result.stages}{result.verdicts}")

    assert processes(1, in_memory, {}) == [0] and processes(2, in_memory, {}) == [0, 0]
    for rank in (0, 1):
        assert (folder / "0-of-1.json").read_text() == (folder / f"{rank}-of-2.json").read_text()
        assert torch.equal(
            *(torch.load(folder / name, weights_only=True) for name in ("0-of-1.pt", f"{rank}-of-2.pt"))
        )
    assert processes(1, counted, {}) == [0] and processes(2, counted, {}) == [0, 0]
    assert len({path.read_text() for path in folder.glob("counted-*")}) == 1
    assert processes(1, at("whole"), {}) == [0]
    assert processes(3, at("shared"), {1: 9}, die) == [2, -signal.SIGKILL, 2]
    assert (folder / "shared/verdicts.2.jsonl").exists()
    assert processes(2, at("shared"), {0: 5, 1: 7}, die) == [-signal.SIGKILL, -signal.SIGKILL]
    assert processes(2, at("shared"), {}) == [0, 0]
    for name in ("verdicts.jsonl", "adversarial.bin"):
        assert (folder / "whole" / name).read_bytes() == (folder / "shared" / name).read_bytes()
    assert {path.name for path in (folder / "whole").iterdir()} == {
        p.name for p in (folder / "shared").iterdir()
    }
    assert processes(3, at("full"), {1: 4}, disk_full) == [2, 2, 2]
    with RunFolder.open("attack", "toy", StrictModel(), folder / "busy"):
        assert processes(2, at("busy"), {}) == [2, 2]
    os.chdir(folder)
    assert processes(1, command, {}) == [1] and processes(2, command, {}) == [1, 1]  # the bar is missed


if __name__ == "__main__":
    main(Path(sys.argv[1]))
