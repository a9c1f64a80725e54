"""How many images a second a perturbation generator makes, beside PGD-40.

    python recipes/bench/advgan.py MODEL GENERATOR --arch lenet --data mnist --norm linf --eps 0.3

MODEL and GENERATOR are whatever `advkit.load_model` takes. Expected time on an idle core: a minute. Printed
are images a second of processor time, by turns, the best of some repetitions: of the generator's pass alone;
of the attack ``advgan:GENERATOR``, whose images the model confirms; of 40 passes of the model each way
in a bare loop, which is the least that PGD-40 costs; and of the attack ``pgd``, which leaves an image as soon
as it is broken.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

import advkit
from advkit.core import memory
from advkit.data.load import load_data

STEPS = 40


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("generator")
    parser.add_argument("--arch", default=None)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--norm", default="linf")
    parser.add_argument("--eps", type=float, default=0.3)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    data = load_data(options.data)
    model = advkit.load_model(options.model, role="classifier", arch=options.arch, shape=data.shape)
    generator = advkit.load_model(options.generator, role="perturbation-generator")
    threat = advkit.Threat(options.norm, options.eps)
    model, generator = (each.eval().requires_grad_(False) for each in (model, generator))
    x, y = data.batch(torch.arange(min(options.n, len(data))))

    def generated() -> None:
        with torch.no_grad():
            generator(x)

    def bare() -> None:
        for _ in range(STEPS):
            at = x.detach().requires_grad_(True)
            torch.autograd.grad(cross_entropy(model(at), y, reduction="sum"), at)

    def attacked(name: str, **parameters: int) -> None:
        advkit.perturb(model, x, y, threat, name, parameters=parameters)

    works: dict[str, Callable[[], None]] = {
        "generator": generated,
        "generator, confirmed": lambda: attacked(f"advgan:{options.generator}"),
        "40 bare passes each way": bare,
        "PGD-40, until broken": lambda: attacked("pgd", steps=STEPS),
    }
    least = dict.fromkeys(works, float("inf"))
    with memory.kept():
        for repetition in range(options.repetitions + 1):
            for name, work in works.items():
                begun = time.process_time()
                work()
                if repetition:  # the first time, libraries choose their ways
                    least[name] = min(least[name], time.process_time() - begun)
    print(f"{len(x)} images, {torch.get_num_threads()} threads")
    for name, spent in least.items():
        ratio = least["40 bare passes each way"] / spent
        print(f"{name:24} {len(x) / spent:10,.0f} images/s, {ratio:6.1f} times the bare passes")


if __name__ == "__main__":
    main()
