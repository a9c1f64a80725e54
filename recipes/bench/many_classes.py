"""Passes that `cascade` spends on images of 224x224 pixels and 1,000 classes that no attack breaks.

    python recipes/bench/many_classes.py --n 8

The network averages squares of 16 pixels and is as initialised, and eps is too small to change a class: so
every image costs all passes that are planned, as with a robust network, and none of them takes long.
Expected time on 2 cores: two minutes for 8 images.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import advkit
from advkit import Threat

CLASSES, SIDE, POOLED = 1000, 224, 16


def main() -> None:
    """Counts and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--n", type=int, default=8)
    options.add_argument("--eps", type=float, default=1e-5)
    chosen = options.parse_args()
    torch.manual_seed(0)
    features = 3 * (SIDE // POOLED) ** 2
    layers = (nn.AvgPool2d(POOLED), nn.Flatten(), nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    network, x = nn.Sequential(*layers), torch.rand(chosen.n, 3, SIDE, SIDE)
    with torch.no_grad():
        y = network(x).argmax(1)
    result = advkit.evaluate(network, (x, y), Threat("linf", chosen.eps), "cascade", seed=0)
    print(f"{result.robust_correct} of {chosen.n} images are robust")
    for stage in result.stages:
        print(f"{stage.name:50} {stage.attacked:5} {(stage.forwards + stage.backwards) / chosen.n:9.1f}")
    print(f"passes of an image: {(result.forwards + result.backwards) / chosen.n:.1f}")


if __name__ == "__main__":
    main()
