"""What PGD of fixed steps costs beyond the forward and backward passes it contains.

    python recipes/bench/pgd_overhead.py

Expected time: about a minute. Prints the ratio of `advkit.attacks.perturb.fixed` (40 steps, linf) to a
bare loop of as many forward and backward passes on the same network and batch, by turns in one run: of the
fastest repetition of each (what else runs on the machine only ever adds time), and the median, smallest and
largest ratio of a turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import torch

from advkit import rng
from advkit.attacks.perturb import fixed
from advkit.models.network import build
from advkit.threat import Threat

STEPS = 40


def bare(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Forward and backward to the input, nothing else."""
    for _ in range(STEPS):
        x = x.detach().requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(network(x), y, reduction="sum")
        torch.autograd.grad(loss, x)


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repetitions", type=int, default=15)
    options.add_argument("--batch-size", type=int, default=100)
    options.add_argument("--device", default="cpu")
    options.add_argument("--norm", default="linf")
    chosen = options.parse_args()
    # On a CPU that others share, the process's own time; on a GPU, the clock on the wall.
    clock = time.process_time if chosen.device == "cpu" else time.perf_counter
    threat = Threat(chosen.norm, 0.3 if chosen.norm == "linf" else 2.0)
    print(f"PGD-{STEPS} {threat}, batch {chosen.batch_size}, {torch.get_num_threads()} threads")
    for arch, shape in (("lenet", (1, 28, 28)), ("small-cnn", (1, 28, 28)), ("small-cnn", (3, 32, 32))):
        with rng.scope("cpu", 0, "bench"):
            network = build(arch, shape=shape, classes=10).eval().to(chosen.device)
        ids = torch.arange(chosen.batch_size, device=chosen.device)
        x, y = rng.uniform(rng.keys(0, "bench", ids), shape), ids % 10

        works = (
            partial(bare, network, x, y),
            partial(fixed, network, x, y, threat=threat, parameters={"steps": STEPS}, ids=ids, seed=0),
        )
        times: list[list[float]] = []
        for repetition in range(chosen.repetitions + 1):
            spent = []
            for work in works:
                begun = clock()
                work()
                if chosen.device != "cpu":
                    torch.cuda.synchronize()
                spent.append(clock() - begun)
            if repetition:  # the first warms up
                times.append(spent)
        ratios = [ours / passes for passes, ours in times]
        passes, ours = (min(column) for column in zip(*times, strict=True))
        print(
            f"{arch:10s} {shape}: fastest {ours / passes:.3f}, median {statistics.median(ratios):.3f} "
            f"of the bare passes ({min(ratios):.3f} to {max(ratios):.3f}, {len(ratios)} repetitions)"
        )


if __name__ == "__main__":
    main()
