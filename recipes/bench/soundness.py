"""Whether a proof of complete verification is ever contradicted.

    python recipes/bench/soundness.py exact --n 1000
    python recipes/bench/soundness.py arithmetic --n 1000
    python recipes/bench/soundness.py attacks FOLDER --n 60

`exact`: small networks drawn with least margins near 0, beside their exact minima by enumeration of all
patterns of signs (`tests/verify/exact.py`). Three minutes on one core.
`arithmetic`: networks made to deceive a verifier of real arithmetic (after Zombori et al. 2021, and Jia and
Rinard 2021): large weights that cancel, what leads is lost in rounding, denormal and overflowing values.
Points of the ball are classified by the model itself, one by one and in batches. Six minutes at --n 500.
`attacks`: public classifiers in FOLDER and those that ship with advkit; the images that are certified are
attacked by targeted Auto-PGD, Square and memetic. MNIST and CIFAR-10 must be where ADVKIT_DATA says. Half an
hour.

Each ends with a line of counts, and with exit code 1 if anything was contradicted.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

import advkit
from advkit import Threat
from advkit.core import rng
from advkit.verify.bounds.ball import Ball

sys.path.append(str(Path(__file__).parents[2] / "tests" / "verify"))
from exact import smallest

NEAR = 1e-5
"""Margins of less are decided by rounding, and may end either way."""
POINTS = 3000
CIFAR = {"mean": (0.4914, 0.4824, 0.4467), "std": (0.2471, 0.2435, 0.2616)}
ONNX_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
SUBJECTS: tuple[tuple[str, str, str, float, dict[str, Any]], ...] = (
    ("mnist_fc_256x2.onnx", "mnist", "linf", 0.03, {}),
    ("mnist_fc_256x2.onnx", "mnist", "l2", 0.3, {}),
    ("convex_adversarial_mnist.pth", "mnist", "linf", 0.1, {}),
    ("convex_adversarial_mnist.pth", "mnist", "linf", 0.15, {}),
    ("convex_adversarial_mnist.pth", "mnist", "l1", 0.5, {}),
    ("mnist_cnn_a_adv.pth", "mnist", "linf", 0.1, {}),
    ("mnist_lenet5_advtrained.pt", "mnist", "linf", 0.03, {}),
    ("cifar_cnn_a_adv.pth", "cifar10", "linf", 1 / 255, CIFAR),
    ("cifar_resnet_2b.onnx", "cifar10", "linf", 1 / 255, ONNX_CIFAR),
    ("advkit:digits-robust", "digits", "linf", 0.15, {}),
    ("advkit:digits-robust", "digits", "l2", 0.5, {}),
    ("advkit:mnist-certified", "mnist", "linf", 0.3, {}),
)
STRONG = ("apgd-t", "square", "memetic")
FEW = {"memetic": {"ascents": 100}}


def connected(widths: tuple[int, ...], slope: float, key: Tensor, factor: float) -> nn.Sequential:
    """A fully connected network with drawn weights."""
    layers: list[nn.Module] = [nn.Flatten()]
    for number, (wide, out) in enumerate(itertools.pairwise(widths)):
        if number:
            layers.append(nn.LeakyReLU(slope) if slope else nn.ReLU())
        layer, drawn = nn.Linear(wide, out), rng.uniform(key + number, (out, wide + 1))[0]
        weight = (2 * drawn - 1) * factor / wide**0.5
        layer.weight.data, layer.bias.data = weight[:, :wide].clone(), weight[:, wide].clone()
        layers.append(layer)
    return nn.Sequential(*layers).eval()


def exact(number: int) -> str:
    """The outcome of one small network."""
    key = rng.keys(number, "soundness", torch.arange(1))
    dice = rng.uniform(key, (8,))[0].tolist()
    inputs, classes = 2 + int(15 * dice[0]), 2 + int(3 * dice[1])
    slope = 0.1 if dice[2] < 0.25 else 0.0
    widths = (inputs, 2 + int(2 * dice[3]), 2 + int(2 * dice[4]), classes)
    model = connected(widths, slope, key + 100, 2 + 3 * dice[5])
    x, threat = 0.2 + 0.6 * rng.uniform(key + 1, (1, 1, inputs)), Threat("linf", 0.05 + 0.3 * dice[6])
    label = model(x).argmax(1)
    layers = [module for module in model if isinstance(module, nn.Linear)]
    plain = [[part.detach().double().numpy() for part in layer.parameters()] for layer in layers]
    eye, true = numpy.eye(classes), int(label)
    rows = numpy.array([eye[true] - eye[other] for other in range(classes) if other != true])
    least = float(smallest(plain, Ball(x, threat), rows, slope).min())
    wanted = 10 ** (-4 + 3 * dice[7]) * (1 if number % 2 else -1)
    layers[-1].bias.data[true] += wanted - least
    least += float(layers[-1].bias.data[true].double()) - float(plain[-1][1][true])
    if int(model(x).argmax(1)) != true:
        return "misclassified"
    (verdict,) = advkit.certify(model, (x, label), threat, "complete", timeout=20, progress=False).verdicts
    if verdict.status == "undecided":  # the bound is exact, but for the rounding of the model's own pass
        return "within rounding" if verdict.margin + verdict.rounding > 0 else "undecided"
    if abs(least) < NEAR:
        return "within rounding"
    return verdict.status if (verdict.status == "certified") == (least > 0) else "contradicted"


def deceiving(number: int) -> tuple[nn.Sequential, Tensor, Threat]:
    """A network whose float32 passes are not what real arithmetic says, an image, and a threat model."""
    key = rng.keys(number, "deceiving", torch.arange(1))
    dice = rng.uniform(key, (6,))[0].tolist()
    kind, size = ("cancelling", "swallowed", "denormal", "overflowing", "offset")[number % 5], dice[0]
    inputs = 2 + int(4 * dice[1])
    model = connected((inputs, 6, 5, 2), 0.0, key + 100, 1 + 3 * dice[2])
    first, second, last = (module for module in model if isinstance(module, nn.Linear))
    if kind == "cancelling":  # equal neurons of opposite weights, whose sum is rounding alone
        first.weight.data[3:], first.bias.data[3:] = first.weight.data[:3], first.bias.data[:3]
        second.weight.data[:, :3] *= 10 ** (2 + 8 * size)
        second.weight.data[:, 3:] = -second.weight.data[:, :3]
        last.weight.data *= 10 ** (-2 - 4 * dice[3])
    elif kind == "swallowed":  # what is added to a large number is lost, and then it is subtracted
        large = 2.0 ** (10 + 30 * size)
        second.bias.data += large
        last.bias.data -= last.weight.data.sum(1) * large
    elif kind == "denormal":
        first.weight.data *= 10.0 ** (-36 - 8 * size)
        first.bias.data *= 10.0 ** (-36 - 8 * size)
        second.weight.data *= 10.0 ** (20 + 16 * dice[3])
    elif kind == "overflowing":
        first.weight.data *= 10.0 ** (15 + 10 * size)
        second.weight.data *= 10.0 ** (15 + 10 * dice[3])
    else:
        last.bias.data += 10.0 ** (2 + 7 * size)
    x, threat = 0.2 + 0.6 * rng.uniform(key + 1, (1, 1, inputs)), Threat("linf", 10 ** (-2 * dice[4]) / 3)
    points = around(x, threat, number)
    logits = model(points).double()
    lead = (logits[:, 0] - logits[:, 1]).nan_to_num()
    if dice[5] < 0.7:  # so that the least lead that is seen is near 0
        last.bias.data[0] -= float(lead.min()) * (1 if size < 0.5 else 0.999)
    return model, x, threat


def around(x: Tensor, threat: Threat, number: int) -> Tensor:
    """(P, C, H, W) points of the ball, corners among them."""
    keys = rng.keys(number, "points", torch.arange(POINTS))
    points = threat.sample(x.expand(POINTS, *x.shape[1:]), keys)
    half = x + threat.eps * (points[: POINTS // 2] - x).sign()
    return torch.cat([x, threat.project(half, x.expand_as(half)), points[POINTS // 2 :]])


def arithmetic(number: int) -> str:
    """The outcome of one network."""
    model, x, threat = deceiving(number)
    label = model(x).nan_to_num().argmax(1)
    try:
        result = advkit.certify(
            model, (x, label), threat, "complete", timeout=5, subproblems=60, progress=False
        )
    except advkit.UserError:
        return "refused"
    status = result.verdicts[0].status
    if status != "certified":
        return status
    points = around(x, threat, number + 10**6)
    alone = torch.cat([model(point[None]) for point in points[:300]])
    for logits in (model(points), alone):
        if (~logits.isfinite()).any() or (logits.argmax(1) != label).any():
            return "contradicted"
    return status


def attacks(folder: Path, n: int) -> Iterator[str]:
    """The outcome of each image of each network."""
    for name, source, norm, eps, more in SUBJECTS:
        data = advkit.load_data(source, limit=n if source != "cifar10" else n // 2)
        found = name if name.startswith("advkit:") else folder / name
        model, threat = advkit.load_model(found, shape=data.shape, **more), Threat(norm, eps)  # type: ignore[arg-type]
        begun = time.perf_counter()
        result = advkit.certify(model, data, threat, "complete", timeout=5, progress=False)
        middle, counts = time.perf_counter(), Counter(one.status for one in result.verdicts)
        certified = torch.tensor([one.status == "certified" for one in result.verdicts])
        broken = 0
        if certified.any():
            left = data.take(certified.nonzero()[:, 0])
            again = advkit.evaluate(model, left, threat, STRONG, seed=1, parameters=FEW, progress=False)
            broken = sum(one.status == "broken" for one in again.verdicts)
        seconds = f"{middle - begun:.0f} + {time.perf_counter() - middle:.0f} s"
        print(
            name, norm, round(eps, 4), dict(counts), f"broken of the certified: {broken}", seconds, flush=True
        )
        yield from ["contradicted"] * broken
        yield from (one.status for one in result.verdicts)


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("part", choices=("exact", "arithmetic", "attacks"))
    options.add_argument("folder", type=Path, nargs="?", default=Path())
    options.add_argument("--n", type=int, default=100)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    outcomes: Counter[str] = Counter()
    if chosen.part == "attacks":
        outcomes.update(attacks(chosen.folder, chosen.n))
    else:
        decide = exact if chosen.part == "exact" else arithmetic
        for number in range(chosen.n):
            outcome = decide(number)
            outcomes[outcome] += 1
            if outcome in ("contradicted", "undecided"):
                print(f"{number}: {outcome}", file=sys.stderr)
    print(dict(outcomes))
    sys.exit(bool(outcomes["contradicted"]))


if __name__ == "__main__":
    main()
