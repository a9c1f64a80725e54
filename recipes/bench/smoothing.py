"""What randomised smoothing costs beside the passes of the bare model.

    python recipes/bench/smoothing.py [MODEL]

MODEL is whatever `advkit.load_model` takes, for 28x28 grey images; without it, an untrained lenet-caffe.
Expected time on an idle core: a minute. Printed are microseconds per noisy copy, the least of some
repetitions, by turns: of the model as it is, and channels-last, over one batch that is ready; of the votes of
a smoothed classifier, which draws, adds, passes and counts; of drawing and adding alone; and of as much
noise by `advkit.core.rng`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from advkit import load_model, smooth
from advkit.core import memory, rng
from advkit.models.load import wrap
from advkit.models.network import build

REPETITIONS, PASSES, SIGMA = 9, 4, 0.5


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("model", nargs="?")
    options.add_argument("--batch", type=int, default=1000)
    options.add_argument("--device", default="cpu")
    chosen = options.parse_args()
    if chosen.model is None:
        with rng.scope("cpu", 0, "init"):
            model = wrap(build("lenet-caffe", shape=(1, 28, 28), classes=10))
    else:
        model = load_model(chosen.model, role="classifier", shape=(1, 28, 28))
    model = model.to(chosen.device).eval().requires_grad_(False)
    image = torch.rand(1, 28, 28, device=chosen.device)
    copies, noisy = (
        chosen.batch * PASSES,
        image + SIGMA * torch.randn(chosen.batch, *image.shape).to(image.device),
    )
    smoothed = smooth(model, SIGMA, batch_size=chosen.batch)
    keys = rng.keys(0, "bench", torch.arange(chosen.batch, device=image.device))

    def bare(network: torch.nn.Module) -> None:
        for _ in range(PASSES):
            network(noisy)

    def drawn() -> None:
        for _ in smoothed.copies(image, 0).passes(copies, chosen.batch):
            pass

    def hashed() -> None:
        for number in range(PASSES):
            rng.normal(rng.step(keys, number), tuple(image.shape)).mul_(SIGMA).add_(image)

    works: dict[str, Callable[[], object]] = {
        "model as it is": lambda: bare(model),
        "model, channels last": lambda: bare(smoothed.network),
        "votes": lambda: smoothed.votes(smoothed.copies(image, 0), copies),
        "noise alone": drawn,
        "noise by advkit.core.rng": hashed,
    }
    least = dict.fromkeys(works, float("inf"))
    with memory.kept(), torch.no_grad():
        for repetition in range(REPETITIONS + 1):
            for name, work in works.items():
                begun = time.perf_counter()
                work()
                if image.device.type == "cuda":
                    torch.cuda.synchronize()
                if repetition:  # the first time, libraries choose their ways
                    least[name] = min(least[name], (time.perf_counter() - begun) / copies * 1e6)
    print(f"passes of {chosen.batch}, {torch.get_num_threads()} threads, {chosen.device}")
    for name, spent in least.items():
        print(f"{name:22} {spent:7.2f} us a copy, {spent / least['model, channels last']:6.1%}")


if __name__ == "__main__":
    main()
