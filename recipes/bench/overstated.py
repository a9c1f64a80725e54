"""How much `cascade` misses of what AutoAttack and a long Square Attack find, on public classifiers.

    python recipes/bench/overstated.py FOLDER --n 500 --device cuda > overstated.jsonl
    python recipes/bench/overstated.py FOLDER --n 20 --only mnist_cnn_a_adv        # tries the script itself

FOLDER has the classifiers of SUBJECTS; the data sets must be where ADVKIT_DATA says.
Expected time at n = 500: four minutes on a data-centre GPU; on a CPU one second for each image and subject.

Each line is one classifier and threat model. AutoAttack has another seed than `cascade`, or both would make
the same random windows. `left`: images that are robust after each. `missed`: survivors of `cascade` that
AutoAttack broke. `lost`: survivors that 5,000 queries of Square or APGD-T (9 targets, 100 steps) break,
with a third seed, all of them attacked. `stated`: how many may be missing, as `cascade` says it.
`covered`: of 200 random samples of the survivors, of that size,
the share whose stated bound is not below `lost`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import advkit
from advkit import Threat
from advkit.core.stats import most_successes
from advkit.data.data import Data
from advkit.evaluation.result import EvaluationResult

CIFAR = {"mean": (0.4914, 0.4824, 0.4467), "std": (0.2471, 0.2435, 0.2616)}
ONNX_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
SUBJECTS: tuple[tuple[str, str, str, float, dict[str, Any]], ...] = (
    ("mnist_cnn_a_adv.pth", "mnist", "linf", 0.3, {}),
    ("mnist_lenet5_advtrained.pt", "mnist", "linf", 0.3, {}),
    ("cifar_cnn_a_adv.pth", "cifar10", "linf", 2 / 255, CIFAR),
    ("convex_adversarial_mnist.pth", "mnist", "linf", 0.1, {}),
    ("convex_adversarial_mnist.pth", "mnist", "linf", 0.15, {}),
    ("mnist_fc_256x2.onnx", "mnist", "linf", 0.03, {}),
    ("cifar_resnet_2b.onnx", "cifar10", "linf", 2 / 255, ONNX_CIFAR),
    ("mnist_lenet5_advtrained.pt", "mnist", "l2", 1.5, {}),
    ("mnist_lenet5_advtrained.pt", "mnist", "l1", 5.0, {}),
    ("cifar_cnn_a_adv.pth", "cifar10", "l2", 0.25, CIFAR),
    ("cifar_cnn_a_adv.pth", "cifar10", "l1", 3.0, CIFAR),
    ("mnist_cnn_a_adv.pth", "mnist", "l2", 1.5, {}),
    ("mnist_cnn_a_adv.pth", "mnist", "l1", 5.0, {}),
    ("convex_adversarial_mnist.pth", "mnist", "l2", 1.0, {}),
    ("convex_adversarial_mnist.pth", "mnist", "l1", 5.0, {}),
    ("mnist_fc_256x2.onnx", "mnist", "l2", 0.5, {}),
    ("mnist_fc_256x2.onnx", "mnist", "l1", 3.0, {}),
    ("cifar_resnet_2b.onnx", "cifar10", "l2", 0.25, ONNX_CIFAR),
    ("cifar_resnet_2b.onnx", "cifar10", "l1", 3.0, ONNX_CIFAR),
)
PAIR = ("apgd-t", "square")
RESAMPLES = 200


def passes(result: EvaluationResult) -> int:
    """Of all stages and checks."""
    return result.forwards + result.backwards


def robust(result: EvaluationResult) -> set[int]:
    """Ids of the images that are classified correctly after all."""
    return {verdict.id for verdict in result.verdicts if verdict.status == "robust"}


def covered(lost: set[int], survivors: list[int], sample: int) -> float:
    """The share of random samples whose bound covers what there is to find."""
    good = 0
    for seed in range(RESAMPLES):
        drawn = torch.randperm(len(survivors), generator=torch.Generator().manual_seed(seed))[:sample]
        hits = sum(survivors[at] in lost for at in drawn.tolist())
        good += most_successes(hits, len(drawn), len(survivors)) >= len(lost)
    return good / RESAMPLES


def compared(model: Any, data: Data, threat: Threat) -> Iterator[tuple[str, Any]]:
    """The figures of one line."""

    def timed(run: Callable[[], EvaluationResult]) -> tuple[EvaluationResult, float]:
        begun = time.perf_counter()
        return run(), time.perf_counter() - begun

    ours, mine = timed(lambda: advkit.evaluate(model, data, threat, "cascade", seed=0))
    theirs, long = timed(lambda: advkit.evaluate(model, data, threat, "autoattack", seed=1))
    left = robust(ours)
    rows = torch.isin(data.ids, torch.tensor(sorted(left), dtype=torch.int64)).nonzero()[:, 0]
    lost: set[int] = set()
    if left:
        again = advkit.evaluate(model, data.take(rows), threat, PAIR, seed=2)
        lost = left - robust(again)
        found = {v.id: (v.attack, v.iteration) for v in again.verdicts if v.id in lost}
        yield "by", found
    yield "clean", ours.clean_correct
    yield "left", {"cascade": len(left), "autoattack": len(robust(theirs))}
    yield "missed", sorted(left - robust(theirs))
    yield "extra", len(robust(theirs) - left)
    yield "lost", sorted(lost)
    if ours.missing is not None:
        yield "stated", ours.missing.model_dump()
        yield "covered", covered(lost, sorted(left), ours.missing.sample)
    yield "passes", {"cascade": passes(ours), "autoattack": passes(theirs)}
    yield "ratio", round(passes(ours) / passes(theirs), 4)
    yield "seconds", {"cascade": round(mine, 1), "autoattack": round(long, 1)}
    yield "trust", ours.trust
    yield "doubts", [check.name for check in ours.checks if check.verdict == "doubt"]
    yield "stages", [(s.name, s.attacked, s.broken, s.forwards + s.backwards) for s in ours.stages]
    yield "margins", {v.id: v.margin for v in ours.verdicts if v.id in left}


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--n", type=int, default=500)
    options.add_argument("--device", default="cpu")
    options.add_argument("--only", nargs="*", help="names of files, without their endings")
    options.add_argument("--norms", nargs="*", default=["linf", "l2", "l1"])
    options.add_argument("--minutes", type=float, default=60, help="no further line is begun after them")
    chosen, begun = options.parse_args(), time.perf_counter()
    for name, source, norm, eps, more in SUBJECTS:
        if norm not in chosen.norms or (chosen.only and Path(name).stem not in chosen.only):
            continue
        if time.perf_counter() - begun > 60 * chosen.minutes:
            print(f"{name} {norm} {eps:.4g}: no time is left", file=sys.stderr)
            continue
        data = advkit.load_data(source, limit=chosen.n)
        model = advkit.load_model(chosen.folder / name, shape=data.shape, **more).to(chosen.device)
        line: dict[str, Any] = {"model": name, "norm": norm, "eps": round(eps, 5), "n": len(data)}
        line |= dict(compared(model, data, Threat(norm, eps)))  # type: ignore[arg-type]
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
