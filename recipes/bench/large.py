"""Evaluations at the size of ImageNet: 224x224 pixels, 1,000 classes, JPEG files in folders of synsets.

    pip install 'advkit[timm]'
    python recipes/bench/large.py --folder large --n 200 1000 5000

Neither ImageNet nor trained weights are needed. Made once in the folder are JPEG files of random fields, and
weights of a ResNet-18 and a ViT-Tiny as they are initialised, with a last layer that gives the images many
classes. An image lies in the folder of the class that the network gives it, so that all are right and attacks
have work. Each evaluation is what ``advkit attack`` does, in a process of its own. Printed is a line of JSON
for each: images misclassified, seconds, the share of these in forward and backward passes, the largest
resident memory less what the process took with the model loaded, passes of an image, and the cost of all
images.

Expected time on 2 idle cores: six minutes for the inputs of 5,000 images; PGD with 10 steps on 200 images
takes 20 s on the ResNet-18 and a minute on the ViT-Tiny.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from memory import resident
from PIL import Image
from torch import nn

from advkit.attacks.attack import ATTACKS
from advkit.attacks.perturb import logits_of
from advkit.commands.attack import run as attack
from advkit.core.context import Context
from advkit.core.memory import kept
from advkit.data.load import load_data
from advkit.evaluation.settings import Evaluation
from advkit.models.load import load_model

NETWORKS = {"resnet18": "torchvision:resnet18", "vit-tiny": "timm:vit_tiny_patch16_224"}
FIT = {"resize": (256,), "crop": 224}
SPREAD = 3.0
"""Standard deviation of the logits."""


def image(number: int) -> Image.Image:
    """A random field with structure of all sizes, as large as the images of ImageNet are on average."""
    draw, size = np.random.default_rng(number), (500, 375)
    levels = np.full((*size[::-1], 3), 128.0, np.float32)
    for side, height in ((2, 40), (4, 35), (8, 30), (16, 25), (64, 15), (256, 8)):
        cells = (128 + height * draw.standard_normal((side, side, 3))).clip(0, 255).astype(np.uint8)
        levels += np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)) - np.float32(128)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def prepare(n: int) -> None:
    """``n`` images, the weights, and for each network the images by the class that it gives them, in the
    working folder; what is there already stays."""
    plain = Path("plain/val/image")
    plain.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        if not (path := plain / f"{number:06d}.jpg").exists():
            image(number).save(path, quality=90)
    synsets = resources.files("advkit.data").joinpath("imagenet-synsets.txt").read_text("utf-8").split()
    data = load_data("folder:plain", **FIT, memory=0)
    for network, name in NETWORKS.items():
        if not Path(f"{network}.pt").exists():
            write_weights(network, name)
        model = load_model(name, weights=f"{network}.pt", shape=data.shape)
        there = {path.stem for path in Path(network).glob("val/*/*.jpg")}
        fresh = [row for row in range(len(data)) if f"{row:06d}" not in there]
        with torch.no_grad():
            said = logits_of(model, data.take(torch.tensor(fresh))).argmax(1).tolist() if fresh else []
        for row, label in zip(fresh, said, strict=True):
            place = Path(network, "val", synsets[label], f"{row:06d}.jpg")
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(plain / place.name, place)


def write_weights(network: str, name: str) -> None:
    """Weights as initialised, but for the last layer: its outputs have mean 0 and the same spread."""
    data = load_data("folder:plain", **FIT, limit=256, first=True)
    untrained = load_model(name, weights="none", shape=data.shape, classes=1000)
    torch.save(untrained.network.state_dict(), f"{network}.pt")
    model = load_model(name, weights=f"{network}.pt", shape=data.shape)  # normalised as trained weights are
    last = [layer for layer in model.network.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        logits = logits_of(model, data)
        factor = SPREAD / (logits - logits.mean(0)).std()
        last.weight *= factor
        last.bias.copy_(factor * (last.bias - logits.mean(0)))
    torch.save(model.network.state_dict(), f"{network}.pt")


class Passes:
    """Seconds inside modules and `torch.autograd.grad`."""

    def __init__(self) -> None:
        self.seconds, self._inside = 0.0, False

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts inside the context."""
        call, grad = nn.Module.__call__, torch.autograd.grad
        with (
            mock.patch.object(nn.Module, "__call__", lambda *args, **kw: self._timed(call, *args, **kw)),
            mock.patch.object(torch.autograd, "grad", partial(self._timed, grad)),
        ):
            yield

    def _timed(self, function: Any, *args: Any, **settings: Any) -> Any:
        if self._inside:
            return function(*args, **settings)
        self._inside, begun = True, time.perf_counter()
        try:
            return function(*args, **settings)
        finally:
            self._inside, self.seconds = False, self.seconds + time.perf_counter() - begun


def has_steps(attack: str) -> bool:
    """Whether its number of steps is a parameter."""
    return attack in ATTACKS and "steps" in ATTACKS.get(attack).Config.model_fields


def measure(network: str, settings: Evaluation, out: str) -> dict[str, Any]:
    """One evaluation."""
    with kept():
        load_model(settings.model, weights=settings.weights, shape=(3, 224, 224))
        before, begun, passes = resident("VmRSS"), time.perf_counter(), Passes()
        with passes.counted():
            result = attack(settings, Context(out=Path(out))).result
        seconds = time.perf_counter() - begun
    spent = result["forwards"] + result["backwards"]
    return {
        "network": network,
        "attack": ",".join(settings.attack),
        "n": result["n"],
        "fooled": result["clean_correct"] - result["robust_correct"],
        "seconds": round(seconds, 1),
        "share of time in passes": round(passes.seconds / seconds, 3),
        "MiB over the model": round(resident("VmHWM") - before),
        "MiB before": round(before),
        "passes per image": round(spent / result["n"], 1),
        "cost": result.get("cost"),
    }


def main() -> None:
    """Prepares, measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--folder", default="large")
    options.add_argument("--n", type=int, nargs="+", default=[200, 1000, 5000])
    options.add_argument("--network", nargs="+", default=[*NETWORKS], choices=NETWORKS)
    options.add_argument("--attack", nargs="+", default=["pgd"])
    options.add_argument("--steps", type=int, default=10, help="of each attack that has them")
    options.add_argument("--eps", default="1/255")
    options.add_argument("--time-limit", default=None)
    chosen = options.parse_args()
    Path(chosen.folder).mkdir(parents=True, exist_ok=True)
    os.chdir(chosen.folder)
    prepare(max(chosen.n))
    for network in chosen.network:
        for name in chosen.attack:
            for n in chosen.n:
                settings = Evaluation(
                    model=NETWORKS[network],
                    weights=f"{network}.pt",
                    data=f"folder:{network}",
                    n=n,
                    norm="linf",
                    eps=chosen.eps,
                    attack=(name,),
                    parameters={name: {"steps": chosen.steps}} if has_steps(name) else {},
                    time_limit=chosen.time_limit,
                    **FIT,
                )
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    out = f"run-{network}-{name}-{n}-{time.time():.0f}"
                    print(json.dumps(pool.apply(measure, (network, settings, out))), flush=True)


if __name__ == "__main__":
    main()
