"""The speed of GAN training against a plain PyTorch loop of the same networks.

    python recipes/bench/gan_loop.py --json gan_loop.json

Expected time: about two minutes on one core. Both loops train mlp-gan (batch 128) and conv-gan (batch 64) on
random 28x28 images held in memory as 8-bit levels, in one process, by turns. The plain loop is
the usual one: two Adam optimisers, `BCEWithLogitsLoss`, one update of the discriminator on real and
generated images, then one of the generator. Ours is `GanGame.update`, which `train_gan` repeats: it
does the same, keeps the averaged generator and the discriminator's accuracy besides, and takes its random
numbers from the seed and the step. The ratio is of images a second, ours over the plain loop's: the median
over the repetitions, and the smallest and largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advkit.core import rng
from advkit.core.runs import environment
from advkit.data.data import Data
from advkit.gan.adversarial import GanGame
from advkit.gan.settings import GanTraining
from advkit.models.network import build

BATCH_SIZE = {"mlp-gan": 128, "conv-gan": 64}
SHAPE = (1, 28, 28)


def plain(arch: str, batch_size: int, images: torch.Tensor, device: torch.device) -> Callable[[], None]:
    """One step of the usual loop."""
    generator = build(f"{arch}-generator", shape=SHAPE).to(device)
    discriminator = build(f"{arch}-discriminator", shape=SHAPE).to(device)
    prior = torch.rand if arch == "mlp-gan" else torch.randn
    of_generator = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    of_discriminator = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    criterion = nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(batch_size, device=device), torch.zeros(batch_size, device=device)

    def step() -> None:
        real = images[torch.randint(len(images), (batch_size,))].to(device).float() / 255
        fake = generator(prior(batch_size, generator.latent_dim, device=device))
        of_discriminator.zero_grad()
        loss = criterion(discriminator(real), ones) + criterion(discriminator(fake.detach()), zeros)
        loss.backward()
        of_discriminator.step()
        of_generator.zero_grad()
        criterion(discriminator(fake), ones).backward()
        of_generator.step()

    return step


def measure(arch: str, steps: int, repetitions: int, device: torch.device) -> dict[str, Any]:
    """Images a second of both loops, and their ratio."""
    batch_size = BATCH_SIZE[arch]
    images = rng.integers(rng.keys(0, "bench", torch.arange(4096)), SHAPE, 256).to(torch.uint8)
    labels = torch.zeros(len(images), dtype=torch.int64)
    data = Data("noise", "train", images, labels, ("noise",), torch.arange(len(images)))
    ours = GanGame(GanTraining(arch=arch, batch_size=batch_size), data, device)
    loops = {"plain": plain(arch, batch_size, images, device), "advkit": ours.update}
    # On a CPU that others share, the process's own time; on a GPU, the clock on the wall.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for repetition in range(repetitions + 1):
        for name, step in loops.items():
            begun = clock()
            for _ in range(steps):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repetition:  # the first warms up
                speeds[name].append(steps * batch_size / (clock() - begun))
    ratios = [ours / plain for ours, plain in zip(speeds["advkit"], speeds["plain"], strict=True)]
    return {
        "arch": arch,
        "batch_size": batch_size,
        "images_per_second": {name: statistics.median(of) for name, of in speeds.items()},
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "steps": steps,
        "repetitions": repetitions,
    }


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--arch", choices=BATCH_SIZE, action="append", help="by default both")
    options.add_argument("--steps", type=int, default=20, help="a repetition")
    options.add_argument("--repetitions", type=int, default=7)
    options.add_argument("--device", default="cpu")
    options.add_argument("--json", type=Path, help="also write the figures here")
    chosen = options.parse_args()
    device = torch.device(chosen.device)
    clock = "this process's own time" if device.type == "cpu" else "time on the wall"
    print(f"{chosen.device}, {torch.get_num_threads()} threads; images a second of {clock}")
    print(f"{'':10}{'plain':>10}{'advkit':>10}   ratio (range)")
    rows = []
    for arch in chosen.arch or BATCH_SIZE:
        rows.append(row := measure(arch, chosen.steps, chosen.repetitions, device))
        speed, (low, high) = row["images_per_second"], row["ratio_range"]
        speeds = f"{speed['plain']:10,.0f}{speed['advkit']:10,.0f}"
        print(f"{arch:10}{speeds}   {row['ratio']:.3f} ({low:.3f} to {high:.3f})")
    if chosen.json is not None:
        result = {"environment": environment(), "threads": torch.get_num_threads(), "pairs": rows}
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
