"""Evaluations that end in unfortunate ways. Processes are forked, so that PyTorch is imported only once.

Run by `test_crashes.py` as ``python forked.py SCENARIO FOLDER``.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import nn

import advkit
from advkit import distributed, rng
from advkit.attacks.attack import ATTACKS
from advkit.config import StrictModel
from advkit.data.data import Data
from advkit.errors import OutputError, UserError
from advkit.evaluation import evaluate
from advkit.evaluation.result import EvaluationResult
from advkit.journal import Journal
from advkit.runs import RunFolder

N = 64
LINES = ("verdicts.jsonl", "adversarial.bin")


class Slopes(nn.Module):
    """Of the wrong classes the likeliest are out of reach: so every stage of the cascade breaks some."""

    def __init__(self) -> None:
        super().__init__()
        steepness = torch.tensor([0, 0.01, 0.01, 0.01, 0.4, 1, 1, 1, 1, 1])
        with rng.scope("cpu", 3, "slopes"):
            self.weight = nn.Parameter(torch.randn(10, 64) * steepness[:, None])
        behind = torch.tensor([0, 0.3, 0.4, 0.5, 0.5, 2, 2, 2, 2, 2])
        self.bias = nn.Parameter(-behind - 0.5 * self.weight.detach().sum(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def evaluated(
    folder: Path | None, model: nn.Module | None = None, attack: str = "cascade", *, keep: bool = False
) -> EvaluationResult:
    """The default cascade with few steps in rounds of 4 images, without the checks."""
    images = 0.5 + 0.3 * (rng.uniform(torch.arange(N), (1, 8, 8)) - 0.5)
    with torch.no_grad():
        labels = Slopes()(images).argmax(1)
    data = Data("toy", "test", images, labels, tuple("abcdefghij"), torch.arange(N))
    plan = evaluate.plan

    def short(*args):
        return tuple(replace(s, parameters={**s.parameters, **_few(s.attack)}, round=4) for s in plan(*args))

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(evaluate, "plan", short))
        stack.enter_context(mock.patch.object(evaluate, "ask_all", lambda *_: ()))
        run = folder and stack.enter_context(RunFolder.open("attack", "toy", StrictModel(), folder))
        return advkit.evaluate(
            model or Slopes(),
            data,
            advkit.Threat("linf", 0.024),
            attack,
            precision="float32",
            keep=keep,
            run=run,
        )


def _few(attack: str) -> dict[str, int]:
    names = ("steps", "queries", "draws")
    return {name: 8 for name in names if name in ATTACKS.get(attack).Config.model_fields}


@contextlib.contextmanager
def at_verdict(number: int, happens: Callable[[Journal, str], None]) -> Iterator[None]:
    """Something happens in place of writing the line of the so-many-th verdict."""
    add, added = Journal.add, 0

    def adding(self, line):
        nonlocal added
        added += 1
        if added == number:
            happens(self, line)
        add(self, line)

    with mock.patch.object(Journal, "add", adding):
        yield


def die(journal: Journal, line: str) -> None:
    """The image is written, its line is not."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_middle(journal: Journal, line: str) -> None:
    """Half of the line is written."""
    with journal.path.open("a") as file:
        file.write(line[: len(line) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], object]) -> int:
    """The process in which ``work`` is done; a fault of the user ends it with 2."""
    if pid := os.fork():
        return pid
    try:
        work()
    except UserError as fault:
        sys.stdout.write(f"{fault}\n")
        sys.stdout.flush()
        os._exit(2)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(70)
    sys.stdout.flush()
    os._exit(0)


def ended(pid: int) -> int:
    """Its exit code; negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def processes(count: int, work: Callable[[int], object]) -> list[int]:
    """Exit codes of ``count`` processes that share the work, as ``torchrun`` would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(rank: int) -> None:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "TORCHELASTIC_RUN_ID": "test"}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        with distributed.joined():
            work(rank)

    return [ended(pid) for pid in [forked(lambda rank=rank: one(rank)) for rank in range(count)]]


def content(folder: Path) -> list[bytes]:
    """What the ledger left, and nothing but that."""
    assert not list(folder.glob("verdicts.*.jsonl")) + list(folder.glob("adversarial.*.bin"))
    return [(folder / name).read_bytes() for name in LINES]


def kills(folder: Path) -> None:
    """Killed at 20 verdicts and resumed, and killed again and again."""
    assert ended(forked(lambda: evaluated(folder / "whole"))) == 0
    whole = content(folder / "whole")
    stages = Counter(json.loads(line)["stage"] for line in whole[0].splitlines()[1:])
    verdicts = stages.total()
    assert stages["all-targets"] > 4 * 4  # several rounds

    def killed(at: Path, number: int, how: Callable[[Journal, str], None]) -> int:
        def work() -> None:
            with at_verdict(number, how):
                evaluated(at)

        return ended(forked(work))

    for place, number in enumerate(random.Random(0).sample(range(1, verdicts + 1), 20)):
        at = folder / str(number)
        assert killed(at, number, (die, die_in_the_middle)[place % 2]) == -signal.SIGKILL
        lines = (at / LINES[0]).read_bytes().split(b"\n")
        assert len(lines) == number + 1 and bool(lines[-1]) == bool(place % 2)
        assert ended(forked(lambda at=at: evaluated(at))) == 0
        assert content(at) == whole, f"killed at verdict {number}"
    lives = 1
    while killed(folder / "often", 29, die_in_the_middle) == -signal.SIGKILL:
        lives += 1
    assert content(folder / "often") == whole
    assert lives == 1 + (verdicts - 1) // 29


def shared(folder: Path) -> None:
    """Processes that share the work, and what may become of them."""
    assert ended(forked(lambda: evaluated(folder / "whole"))) == 0
    whole = content(folder / "whole")

    def in_memory(rank: int) -> None:
        result = evaluated(None, keep=True)
        assert result.environment["processes"] == str(distributed.world())
        told = result.model_copy(update={"seconds": 0.0, "environment": {}})
        (folder / f"{rank}-of-{distributed.world()}.json").write_text(told.to_json())
        torch.save(result.adversarial, folder / f"{rank}-of-{distributed.world()}.pt")

    assert processes(1, in_memory) == [0]
    assert processes(2, in_memory) == [0, 0]
    one = (folder / "0-of-1.json").read_text()
    assert one == (folder / "0-of-2.json").read_text() == (folder / "1-of-2.json").read_text()
    x = torch.load(folder / "0-of-1.pt")
    assert all(torch.equal(x, torch.load(folder / f"{rank}-of-2.pt")) for rank in (0, 1))

    def in_folder(at: Path, ends: dict[int, int]) -> Callable[[int], None]:
        def work(rank: int) -> None:
            with at_verdict(ends.get(rank, -1), die_in_the_middle):
                evaluated(at)

        return work

    # A part, by three of which one dies; more, by two that both die; the rest, by one.
    at = folder / "resumed"
    codes = processes(3, in_folder(at, {1: 9}))
    assert codes == [2, -signal.SIGKILL, 2], codes
    assert sorted(path.name for path in at.glob("verdicts*")) == [
        "verdicts.1.jsonl",
        "verdicts.2.jsonl",
        "verdicts.jsonl",
    ]
    assert processes(2, in_folder(at, {0: 15, 1: 17})) == [-signal.SIGKILL, -signal.SIGKILL]
    shutil.copytree(at, folder / "copy")
    assert processes(1, in_folder(at, {})) == [0]
    assert content(at) == whole
    assert processes(2, in_folder(folder / "copy", {})) == [0, 0]
    assert content(folder / "copy") == whole

    # What befalls one, befalls all.
    def disk_full(journal: Journal, line: str) -> None:
        raise OutputError("the disk of one is full")

    def fails(rank: int) -> None:
        with at_verdict(4 if rank == 1 else -1, disk_full):
            evaluated(folder / "full")

    assert processes(3, fails) == [2, 2, 2]

    def other_model(rank: int) -> None:
        model = Slopes()
        model.bias.data += 0.001 * rank
        evaluated(None, model)

    assert processes(2, other_model) == [2, 2]
    with RunFolder.open("attack", "toy", StrictModel(), folder / "busy"):
        assert processes(2, in_folder(folder / "busy", {})) == [2, 2]


if __name__ == "__main__":
    evaluated(None, attack="noise")  # imports all that is needed, and leaves autograd to the forked
    {"kills": kills, "shared": shared}[sys.argv[1]](Path(sys.argv[2]))
