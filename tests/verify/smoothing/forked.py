"""Certifications that are killed, and go on in company; forked, so that PyTorch is imported once.

Run by `test_certify_smoothed.py` as ``python forked.py FOLDER``.
"""

import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from advkit.core import distributed, rng
from advkit.core.config import StrictModel
from advkit.core.journal import Journal
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.data.data import Data
from advkit.verify.smoothing.certify import certify_smoothed

N = 12


def certified(folder: Path, heard: Progress = SILENT) -> None:
    """Names the brightest pixel, which is right for every other image."""
    images = rng.uniform(torch.arange(N), (1, 2, 2))
    labels = (images.flatten(1).argmax(1) + torch.arange(N) % 2) % 4
    data = Data("toy", "test", images, labels, tuple("abcd"), torch.arange(N) + 100)
    with RunFolder.open("smooth", "toy", StrictModel(), folder) as run:
        result = certify_smoothed(nn.Flatten(), data, 0.25, samples=300, run=run, progress=heard)
    assert result.n == N and [verdict.id for verdict in result.verdicts] == data.ids.tolist()
    (folder / f"radius.{distributed.world()}.{distributed.rank()}").write_text(str(result.average_radius))


def shared(folder: Path) -> None:
    """The first process alone tells of progress."""
    certified(folder, heard := mock.MagicMock())
    told = [(*re.findall(r"\d", call.args[0]), call.args[1]) for call in heard.task.call_args_list]
    assert told == ([("1", "2", N // 2)] if distributed.rank() == 0 else [])


def killed(folder: Path, number: int) -> None:
    """In the middle of the so-many-th line."""
    add, left = Journal.add, number

    def half(self: Journal, fact: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            with self.path.open("a") as file:
                file.write(fact[: len(fact) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, fact)

    with mock.patch.object(Journal, "add", half):
        certified(folder)


def forked(work: Callable[[], None]) -> int:
    """The process in which ``work`` is done."""
    if pid := os.fork():
        return pid
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(70)
    os._exit(0)


def ended(pid: int) -> int:
    """Its exit code; negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def together(work: Callable[[], None]) -> list[int]:
    """Exit codes of two processes that share the work, as ``torchrun`` would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(rank: int) -> None:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "test"}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        distributed.join()
        work()

    return [ended(pid) for pid in [forked(lambda rank=rank: one(rank)) for rank in range(2)]]


def main(folder: Path) -> None:
    """Killed alone, then in company, then finished by one, and by two."""
    assert ended(forked(lambda: certified(folder / "whole"))) == 0
    whole = (folder / "whole" / "smoothed.jsonl").read_bytes()
    assert len(whole.splitlines()) == 1 + N
    for name, last in (("alone", lambda work: [ended(forked(work))]), ("company", together)):
        at = folder / name
        assert ended(forked(lambda at=at: killed(at, 4))) == -signal.SIGKILL
        assert len((at / "smoothed.jsonl").read_text().split("\n")) == 5  # the format, three, and half a line
        codes = together(lambda at=at: killed(at, 2))
        assert -signal.SIGKILL in codes and 0 not in codes, codes
        assert set(last(lambda at=at: certified(at))) == {0}
        assert (at / "smoothed.jsonl").read_bytes() == whole
        assert not list(at.glob("smoothed.*.jsonl"))
    assert together(lambda: shared(folder / "shared")) == [0, 0]
    assert (folder / "shared" / "smoothed.jsonl").read_bytes() == whole
    told = {path.read_text() for path in folder.glob("*/radius.*")}
    assert len(list(folder.glob("*/radius.*"))) == 6 and len(told) == 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
