"""What an update of adversarial training costs beyond the bare passes of model and attack.

    python recipes/bench/adv_train.py

Expected time: half a minute. By turns in one run, the processor time of `Trainer.update` (PGD-10 at linf 0.3
on 28x28 images, augmentation, AdamW and averaged weights included) and that of a bare loop of the same
passes: ten forwards and backwards to the images, one to the weights, no step between them. Printed are the
medians over the repetitions of both and of their ratio, and what the update's time by the clock makes of an
epoch of 60,000 images.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from advkit.core import memory, rng
from advkit.core.config import validate
from advkit.core.threat import Threat
from advkit.data.load import as_data
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build
from advkit.training.objective import OBJECTIVES
from advkit.training.precision import Bfloat16
from advkit.training.settings import Fitting
from advkit.training.trainer import Trainer

STEPS = 10


def bare(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """The passes of PGD-10 and of the update, nothing else."""
    network.eval()
    for _ in range(STEPS):
        x = x.detach().requires_grad_(True)
        torch.autograd.grad(cross_entropy(network(x), y, reduction="sum"), x)
    network.train()
    cross_entropy(network(x.detach()), y).backward()
    network.zero_grad(set_to_none=True)


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Processor time of this process, in all threads, for which nothing else on the machine counts; and time
    by the clock."""
    begun, started = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - begun, time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--repetitions", type=int, default=9)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--arch", default="small-cnn")
    chosen = options.parse_args()
    shape, n = (1, 28, 28), 10 * chosen.batch_size
    ids = torch.arange(n)
    data = as_data(rng.uniform(rng.keys(0, "bench", ids), shape), ids % 10)
    kind = OBJECTIVES.get("pgd")
    objective = kind(validate(kind.Config, {"steps": STEPS, "eps_warmup": 0}, "bench"))
    print(f"{chosen.arch}, PGD-{STEPS}, batch {chosen.batch_size}, {torch.get_num_threads()} threads, CPU")
    print("arithmetic   update, ms   bare passes, ms   ratio (smallest to largest)   an epoch, s")
    for precision in ("float32", "bfloat16"):
        with rng.scope("cpu", 0, "bench"):
            network = build(chosen.arch, shape=shape, classes=10)
        card = ModelCard(role="classifier", architecture=chosen.arch, shape=shape, classes=10)
        config = Fitting(batch_size=chosen.batch_size, epochs=100, shift=1, precision=precision)
        threat, device = Threat("linf", 0.3), torch.device("cpu")
        trainer = Trainer(Model(network, card), config, data, objective, [threat], device, {})
        seen = Bfloat16(trainer.model) if precision == "bfloat16" else trainer.model
        x, y = data.batch(ids[: chosen.batch_size])
        ours, theirs, clock = [], [], []
        with memory.kept():
            for repetition in range(chosen.repetitions + 1):
                passes, _ = seconds(lambda: bare(seen, x, y))  # noqa: B023
                update, waited = seconds(trainer.update)
                if repetition:  # the first warms up
                    ours.append(update)
                    theirs.append(passes)
                    clock.append(waited)
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        update = statistics.median(ours)
        print(
            f"{precision:12} {1000 * update:10.1f} {1000 * statistics.median(theirs):17.1f} "
            f"{statistics.median(ratios):12.3f} ({min(ratios):.3f} to {max(ratios):.3f}) "
            f"{statistics.median(clock) * 60000 / chosen.batch_size:17.1f}"
        )


if __name__ == "__main__":
    main()
