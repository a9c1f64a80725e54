"""How `cascade` fares on networks drawn at random, beside AutoAttack and long attacks.

    python recipes/bench/drawn.py --networks 24 > drawn.jsonl

Layers, activation, training (ordinary, or on noise, FGSM or PGD), norm and eps are drawn for each; all are
honest, so a doubt is a false alarm. A line has the figures of `overstated.py`, on 200 images. Expected
time on one core: a minute each. It needs MNIST, Fashion-MNIST and CIFAR-10 where ADVKIT_DATA says, and halves
their images.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import replace

import torch
from overstated import compared
from torch import Tensor, nn
from torch.nn import functional as F

import advkit
from advkit import Threat
from advkit.core import rng
from advkit.data.data import Data

EPS = {"digits": 0.12, "mnist": 0.2, "fashion-mnist": 0.06, "cifar10": 0.02}
"""Budget of the training in linf, times a drawn factor."""
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Sigmoid)
BATCH, TRAINED, JUDGED, EPOCHS = 64, 6000, 200, 5
LEAST = 0.35
"""Clean accuracy below which a network is not worth an attack."""


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int, activation: type[nn.Module]) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(2)]
        self.inner = nn.Sequential(convolutions[0], activation(), convolutions[1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W)."""
        result: Tensor = x + self.inner(x)
        return result


class Scaled(nn.Module):
    """Logits times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(N, K)."""
        return self.factor * x


def network(draw: random.Random) -> nn.Sequential:
    """Fully connected or with convolutions, of a drawn activation, pooling, norm and scale."""
    activation, width = draw.choice(ACTIVATIONS), draw.choice((8, 16))
    if draw.random() < 0.3:
        layers: list[nn.Module] = [nn.Flatten()]
        for _ in range(draw.randint(1, 3)):
            layers += [nn.LazyLinear(draw.choice((32, 64, 128))), activation()]
    else:
        norm: list[nn.Module] = draw.choice(([], [], [nn.BatchNorm2d(width)], [nn.GroupNorm(2, width)]))
        layers = [nn.LazyConv2d(width, 3, padding=1), *norm, activation()]
        layers += [Residual(width, activation)] if draw.random() < 0.4 else []
        layers += [draw.choice((nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Conv2d(width, width, 3, 2, 1)))]
        layers += [nn.Conv2d(width, 2 * width, 3, padding=1), activation(), nn.Flatten()]
        layers += [nn.LazyLinear(64), activation()] if draw.random() < 0.5 else []
    return nn.Sequential(*layers, nn.LazyLinear(10), Scaled(draw.choice((1, 1, 1, 20, 0.05))))


def halved(data: Data) -> Data:
    """Float images of half the size, of all sets but the digits."""
    x, _ = data.batch(torch.arange(len(data)))
    return replace(data, images=x if data.name == "digits" else F.avg_pool2d(x, 2))


def trained(model: nn.Module, data: Data, way: str, threat: Threat, seed: int) -> None:
    """Adam, on what the way of training makes of each batch."""
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for epoch in range(EPOCHS * max(1, round(TRAINED / len(data)))):
        for rows in rng.permutation(seed, "drawn", len(data), epoch).split(BATCH):
            x, label = data.batch(rows)
            if way == "noise":
                x = threat.sample(x, rng.keys(seed, "noise", rows, epoch))
            elif way != "ordinary":
                steps = {"steps": 4} if way == "pgd" else {}
                x = advkit.perturb(model, x, label, threat, way, parameters=steps, progress=False).x
            optimiser.zero_grad()
            F.cross_entropy(model(x), label).backward()
            optimiser.step()


def budget(model: nn.Module, data: Data, norm: str, share: float) -> float:
    """The eps at which short PGD leaves about this share of the images."""
    low, high = 0.0, {"linf": 1.0, "l2": 6.0, "l1": 20.0}[norm]
    for _ in range(8):
        middle = (low + high) / 2
        left = advkit.evaluate(model, data, Threat(norm, middle), "pgd", progress=False)  # type: ignore[arg-type]
        low, high = (middle, high) if left.robust_accuracy > share else (low, middle)
    return high


def lines(networks: int, first: int) -> Iterator[dict[str, object]]:
    """One for each network."""
    for seed in range(first, first + networks):
        draw = random.Random(seed)
        name = draw.choice(("digits", "digits", "mnist", "fashion-mnist", "cifar10"))
        train, test = (
            halved(advkit.load_data(name, split, limit=most))
            for split, most in (("train", TRAINED), ("test", JUDGED))
        )
        with rng.scope("cpu", seed, "drawn"):
            model = network(draw)
            model(train.images[:BATCH])
            way, threat = draw.choice(("ordinary", "noise", "fgsm", "pgd", "pgd")), Threat("linf", EPS[name])
            trained(model, train, way, threat, seed)
        model.eval()
        norm, share = draw.choice(("linf", "linf", "l2", "l1")), draw.choice((0.15, 0.4, 0.7))
        with torch.no_grad():
            clean = float((model(test.images).argmax(1) == test.labels).float().mean())
        if clean < LEAST:
            continue
        threat = Threat(norm, budget(model, test, norm, share * clean))  # type: ignore[arg-type]
        kinds = ", ".join(type(layer).__name__ for layer in model)
        about = {"seed": seed, "data": name, "layers": kinds, "trained": way, "norm": norm}
        yield {**about, "eps": round(threat.eps, 5)} | dict(compared(model, test, threat))


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--networks", type=int, default=24)
    options.add_argument("--seed", type=int, default=0, help="that of the first network")
    chosen = options.parse_args()
    for line in lines(chosen.networks, chosen.seed):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
