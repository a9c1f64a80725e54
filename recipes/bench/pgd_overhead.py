"""What PGD of fixed steps costs beyond the forward and backward passes it contains.

    python recipes/bench/pgd_overhead.py

Expected time: about a minute. Runs `advkit.attacks.perturb.fixed` (40 steps, linf) and takes the time inside
the model's forward passes and the gradients' backward passes; printed is the whole time over that, for the
repetition with the least of it (what else runs on the machine only ever adds time), and the median. Beside
it, the whole time over that of a bare loop of as many passes on the originals, by turns in the same run; that
ratio also holds what the networks' own speed owes to the images they are shown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import nn

from advkit.attacks.perturb import fixed
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.models.network import build

STEPS = 40


class Timed(nn.Module):
    """A network that knows how long its passes took."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seconds = network, 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The network's logits, timed."""
        begun = time.perf_counter()
        logits: torch.Tensor = self.network(x)
        self.seconds += time.perf_counter() - begun
        return logits

    def grad(self, real: Any, *args: Any, **settings: Any) -> Any:
        """`torch.autograd.grad`, timed."""
        begun = time.perf_counter()
        gradients = real(*args, **settings)
        self.seconds += time.perf_counter() - begun
        return gradients


def bare(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Forward and backward to the input, nothing else."""
    for _ in range(STEPS):
        x = x.detach().requires_grad_(True)
        loss = nn.functional.cross_entropy(network(x), y, reduction="sum")
        torch.autograd.grad(loss, x)


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--repetitions", type=int, default=15)
    options.add_argument("--batch-size", type=int, default=100)
    options.add_argument("--norm", default="linf")
    chosen = options.parse_args()
    threat = Threat(chosen.norm, 0.3 if chosen.norm == "linf" else 2.0)
    print(f"PGD-{STEPS} {threat}, batch {chosen.batch_size}, {torch.get_num_threads()} threads, CPU")
    print("network                  over its own passes (median)   over a bare loop (median)")
    for arch, shape in (("lenet", (1, 28, 28)), ("small-cnn", (1, 28, 28)), ("small-cnn", (3, 32, 32))):
        with rng.scope("cpu", 0, "bench"):
            network = Timed(build(arch, shape=shape, classes=10).eval())
        ids = torch.arange(chosen.batch_size)
        x, y = rng.uniform(rng.keys(0, "bench", ids), shape), ids % 10
        ours = partial(fixed, network, x, y, threat=threat, parameters={"steps": STEPS}, ids=ids, seed=0)
        own, over_bare = [], []
        with mock.patch("torch.autograd.grad", partial(network.grad, torch.autograd.grad)):
            for repetition in range(chosen.repetitions + 1):
                begun = time.perf_counter()
                bare(network, x, y)
                passes = time.perf_counter() - begun
                network.seconds, begun = 0.0, time.perf_counter()
                ours()
                whole = time.perf_counter() - begun
                if repetition:  # the first warms up
                    own.append((whole, whole / network.seconds))
                    over_bare.append(whole / passes)
        ratios = [ratio for _, ratio in own]
        print(
            f"{f'{arch} {shape}':24} {min(own)[1]:.3f} ({statistics.median(ratios):.3f})"
            f"{statistics.median(over_bare):30.3f}"
        )


if __name__ == "__main__":
    main()
