"""Memory that an evaluation takes beyond the model's own, for a thousand and for ten thousand MNIST images.

    ADVKIT_DATA=... python recipes/bench/memory.py

Expected time: half a minute on an idle core. Each size has a process of its own, which loads a LeNet, passes
one batch through it in both directions, and then does what ``advkit attack --save adv.npz`` does, with a
short attack. Printed is the largest resident memory (VmHWM of Linux) less what there was before. The network
itself labels the images, so that all of them are attacked; at the default eps nearly all fall.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from advkit.attacks.perturb import logits_of
from advkit.commands.attack import run as attack
from advkit.core import rng
from advkit.core.context import Context
from advkit.data.load import load_data
from advkit.evaluation.settings import Evaluation
from advkit.models.card import ModelCard
from advkit.models.checkpoint import save_model
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.models.network import build

BAR = 2048
"""MiB beyond the model's own at 10,000 images."""


def resident(name: str) -> float:
    """MiB of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def prepare() -> None:
    """A network as lenet.pt and MNIST's test images with its answers as toy.npz, in the working folder."""
    images = load_data("mnist")
    with rng.scope("cpu", 0, "bench"):
        network = build("lenet", shape=images.shape, classes=10)
    card = ModelCard(role="classifier", architecture="lenet", shape=images.shape, classes=10)
    model = Model(network, card).eval()
    save_model(model, "lenet.pt")
    x = images.images.numpy()
    np.savez("mnist.npz", x=x, y=logits_of(model, images).argmax(1).numpy())


def measure(settings: Evaluation, n: int) -> tuple[float, float, float, int]:
    """(MiB before, MiB at most, seconds, images misclassified) of one evaluation."""
    model = load_model("lenet.pt")
    x = torch.rand(64, *model.card.shape, requires_grad=True)
    torch.autograd.grad(model(x).sum(), x)
    before, begun = resident("VmRSS"), time.perf_counter()
    config = settings.model_copy(update={"n": n, "save": f"{n}.npz"})
    result = attack(config, Context(out=Path(f"run-{n}"))).result
    fooled = result["clean_correct"] - result["robust_correct"]
    return before, resident("VmHWM"), time.perf_counter() - begun, fooled


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--attack", default="pgd")
    options.add_argument("--steps", type=int, default=5)
    options.add_argument("--eps", type=float, default=0.3)
    options.add_argument("--n", type=int, nargs="*", default=[1000, 10000])
    chosen = options.parse_args()
    settings = Evaluation(
        model="lenet.pt",
        data="npz:mnist.npz",
        norm="linf",
        eps=chosen.eps,
        attack=(chosen.attack,),
        parameters={chosen.attack: {"steps": chosen.steps}},
    )
    print(f"{chosen.attack}, {chosen.steps} steps, linf eps {chosen.eps}, {torch.get_num_threads()} threads")
    print("images fooled   seconds   before   at most   beyond (MiB)")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        prepare()
        for n in chosen.n:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                before, most, seconds, fooled = pool.apply(measure, (settings, n))
            beyond = most - before
            verdict = "" if beyond <= BAR else f"   more than {BAR}"
            print(f"{n:6d} {fooled:6d} {seconds:9.1f} {before:8.0f} {most:9.0f} {beyond:14.0f}{verdict}")


if __name__ == "__main__":
    main()
