"""Eight threads evaluate while others call modules of their own: nobody notices the others.

    python recipes/bench/threads.py --minutes 10

Two models, one of them in training mode, are attacked, certified and measured again and again in eight
threads of one process. Beside them bystanders call modules that have nothing to do with it, draw from
generators of their own and look at the process's settings. Every result must be that of one thread, no call
may raise, and at the end all modes and settings must be as before. Prints a line every minute; exit code 1 at
any fault.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import advkit
from advkit.core import rng
from advkit.core.pytorch import float32_settings
from advkit.data.data import Data
from advkit.models.network import build

THREADS, BYSTANDERS = 8, 2


class Bystander(nn.Module):
    """A module with what a tracer would not give it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 4)"""
        assert type(x) is torch.Tensor and type(self.scale) is nn.Parameter
        answer: torch.Tensor = self.layer(x) * self.scale
        return answer if bool(x.sum() > 0) else x


def subjects() -> list[tuple[nn.Module, Data]]:
    """Two networks, each with images that it labels itself; the second stays in training mode."""
    found: list[tuple[nn.Module, Data]] = []
    for seed, training in ((0, False), (1, True)):
        with rng.scope("cpu", seed, "threads"):
            network = build("small-cnn", shape=(1, 8, 8), classes=4)
        images = rng.uniform(torch.arange(40) + 100 * seed, (1, 8, 8))
        with torch.no_grad():
            labels = network.eval()(images).argmax(1)
        data = Data("toy", "test", images, labels, tuple("abcd"), torch.arange(40))
        found.append((network.train(training), data))
    return found


def works(models: list[tuple[nn.Module, Data]]) -> list[Callable[[], Any]]:
    """What the threads do: each answers with values that must always be the same."""
    threat = advkit.Threat("linf", 0.02)
    found: list[Callable[[], Any]] = []
    for model, data in models:
        found += [
            lambda model=model, data=data: [  # type: ignore[misc]
                (verdict.status, verdict.attack, verdict.distance)
                for verdict in advkit.evaluate(
                    model, data, threat, "fgsm,pgd", check_sample=2, precision="float32", batch_size=64
                ).verdicts
            ],
            lambda model=model, data=data: [  # type: ignore[misc]
                verdict.status
                for verdict in advkit.certify(model, data, advkit.Threat("linf", 0.005), "linear").verdicts
            ],
            lambda model=model, data=data: (
                advkit.security_curve(  # type: ignore[misc]
                    model, data, "linf", "fmn", parameters={"fmn": {"steps": 10}}, n=20, batch_size=64
                ).norms
            ),
        ]
    return found


def settings() -> tuple[Any, ...]:
    """Of the process."""
    deterministic = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    return (*deterministic, torch.get_num_threads(), float32_settings(), torch.is_grad_enabled())


def main() -> None:
    """Runs the threads for so many minutes."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--minutes", type=float, default=10)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    models = subjects()
    jobs = works(models)
    before, alone = settings(), [job() for job in jobs]
    modes = [[module.training for module in model.modules()] for model, _ in models]
    end, over = time.monotonic() + 60 * chosen.minutes, threading.Event()
    counts: Counter[str] = Counter()
    faults: list[str] = []

    def attack(number: int) -> None:
        dice = random.Random(number)
        while not over.is_set():
            job = dice.randrange(len(jobs))
            try:
                if jobs[job]() != alone[job]:
                    faults.append(f"thread {number}: another result of work {job}")
                counts["evaluations"] += 1
            except Exception:
                faults.append(f"thread {number}: {traceback.format_exc()}")

    def stand_by(number: int) -> None:
        module, generator = Bystander(), torch.Generator()
        expected, own = module(torch.ones(1, 4)), random.Random(number)
        drawn = torch.rand(3, generator=generator.manual_seed(number))
        while not over.is_set():
            try:
                assert (
                    torch.equal(module(torch.ones(1, 4)), expected)
                    and type(module(torch.ones(1, 4))) is torch.Tensor
                )
                assert torch.equal(torch.rand(3, generator=generator.manual_seed(number)), drawn)
                assert torch.is_grad_enabled() and module.training
                counts["calls of bystanders"] += 1
            except Exception:
                faults.append(f"bystander {number}: {traceback.format_exc()}")
            time.sleep(own.uniform(0, 0.002))

    threads = [threading.Thread(target=attack, args=(number,)) for number in range(THREADS)]
    threads += [threading.Thread(target=stand_by, args=(number,)) for number in range(BYSTANDERS)]
    for thread in threads:
        thread.start()
    while (left := end - time.monotonic()) > 0 and len(faults) < 10:
        time.sleep(min(60, left))
        print(f"{max(0.0, left) / 60:.0f} minutes left: {dict(counts)}, {len(faults)} faults", flush=True)
    over.set()
    for thread in threads:
        thread.join()
    if settings() != before:
        faults.append(f"settings are {settings()}, were {before}")
    if [[module.training for module in model.modules()] for model, _ in models] != modes:
        faults.append("a model is in another mode")
    for fault in faults[:10]:
        print(fault)
    said = ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
    print(f"{THREADS} threads, {BYSTANDERS} bystanders: {said}, {len(faults)} faults")
    sys.stdout.flush()
    os._exit(1 if faults else 0)


if __name__ == "__main__":
    main()
