"""What a pass of the copy that attacks search on costs, lever by lever.

    python recipes/bench/passes.py MODEL

MODEL is whatever `advkit.load_model` takes, for 28x28 grey images. Expected time on 2 cores: half a minute.
Printed are microseconds per image of a forward pass and of a forward and backward pass: the least of some
repetitions, by turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from advkit import load_model
from advkit.attacks.engine.rewrite import rewritten
from advkit.attacks.engine.search_model import SearchModel
from advkit.core import memory

REPETITIONS, PASSES = 7, 10


def forward(model: nn.Module, x: Tensor) -> None:
    """No graph."""
    with torch.no_grad():
        model(x)


def both(model: nn.Module, x: Tensor) -> None:
    """The gradient to the images alone."""
    x = x.detach().requires_grad_(True)
    torch.autograd.grad(model(x)[:, 0].sum(), x)


def microseconds(work: Callable[[nn.Module, Tensor], None], model: nn.Module, x: Tensor) -> float:
    """Of one image."""
    work(model, x)
    begun = time.perf_counter()
    for _ in range(PASSES):
        work(model, x)
    return (time.perf_counter() - begun) / PASSES / len(x) * 1e6


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("model")
    options.add_argument("--batch", type=int, default=181)
    chosen = options.parse_args()
    model = load_model(chosen.model, role="classifier", shape=(1, 28, 28)).eval().requires_grad_(False)
    x = torch.rand(chosen.batch, 1, 28, 28)
    lean, half = rewritten(model), torch.bfloat16
    levers = {
        "as the model is": (model, False),
        "freed memory stays": (model, True),
        "channels last": (SearchModel(model, torch.float32), True),
        "graph rewritten": (SearchModel(lean, torch.float32), True),
        "convolutions in bfloat16": (SearchModel(lean, half), True),
        "hidden linear layers too": (SearchModel(lean, half, hidden=True), True),
    }
    least: dict[str, list[float]] = {name: [float("inf")] * 2 for name in levers}
    for _ in range(REPETITIONS):
        for name, (network, kept) in levers.items():
            with memory.kept() if kept else nullcontext():
                for place, work in enumerate((forward, both)):
                    least[name][place] = min(least[name][place], microseconds(work, network, x))
    print(f"batches of {chosen.batch}, {torch.get_num_threads()} threads")
    for name, (one, two) in least.items():
        print(f"{name:26} {one:7.1f} {two:7.1f}")


if __name__ == "__main__":
    main()
