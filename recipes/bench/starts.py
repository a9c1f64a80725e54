"""Starts of two processes that share work, and how many of them block at their end.

    python recipes/bench/starts.py [--n 200] [--destroy]

Each start joins two processes, gathers values, averages a tensor and ends them, as every command under
``torchrun`` does. Processes are forked, so that PyTorch is imported once. ``--destroy`` ends them with
`torch.distributed.destroy_process_group`, in which PyTorch blocks now and then up to 2.7.1.
"""

import argparse
import os
import signal
import socket
import time

import torch

from advkit.core import distributed

PATIENCE = 20.0
"""Seconds after which a process counts as blocked; one takes far less than a second."""


def work(rank: int, port: int, destroy: bool) -> None:
    """One process: joins, exchanges values, ends."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "starts"}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.join()
    for step in range(5):
        assert distributed.gather((rank, step)) == [(0, step), (1, step)]
    mean = torch.full((1000,), float(rank))
    distributed.average([mean])
    assert mean.eq(0.5).all()
    distributed.wait()
    if destroy:
        torch.distributed.destroy_process_group()
    distributed.leave(0)


def start(destroy: bool) -> list[int]:
    """Process ids of one start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(2):
        if pid := os.fork():
            pids.append(pid)
            continue
        try:
            work(rank, port, destroy)
        finally:
            os._exit(70)
    return pids


def blocked(pids: list[int]) -> bool:
    """Whether one of them has to be killed; asserts that the others ended well."""
    until, killed = time.monotonic() + PATIENCE, False
    for pid in pids:
        ended, status = os.waitpid(pid, os.WNOHANG)
        while not ended and time.monotonic() < until:
            time.sleep(0.005)
            ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, status
            continue
        killed = True
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return killed


def main() -> None:
    """Counts."""
    options = argparse.ArgumentParser()
    options.add_argument("--n", type=int, default=200)
    options.add_argument("--destroy", action="store_true")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    count = sum(blocked(start(chosen.destroy)) for _ in range(chosen.n))
    print(f"PyTorch {torch.__version__}: {count} of {chosen.n} starts blocked")


if __name__ == "__main__":
    main()
