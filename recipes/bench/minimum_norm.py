"""How near the minimum-norm attacks come, beside those of the public packages.

    pip install torchattacks foolbox adv-lib
    python recipes/bench/minimum_norm.py MODEL --n 100

MODEL is whatever `advkit.load_model` takes, for 28x28 grey images; MNIST must be where ADVKIT_DATA says.
Expected time on 2 cores: at most ten minutes for 100 images and a small convolutional network.

Everybody takes ``--steps`` steps: FAB and targeted FMN in equal parts toward each of the ``--targets`` most
likely wrong classes. CW and EAD take half as many in each of ``--searches`` trials of the constant
(torchattacks' CW, which has one, as many in all). Distances are counted afterwards, on the images that came
back, clamped to [0, 1]: 0 where the model is wrong on the original, infinite where it is right on what came
back. Optimality is the local optimality of Cina et al. 2024 (AttackBench): the area between clean accuracy
and the attack's curve of robust accuracy, as a share of that of the nearest distance of all attacks of the
table, image by image. What no package is installed for is left out.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from advkit import load_data, load_model
from advkit.attacks.engine.search import Found
from advkit.attacks.perturb import make, searching
from advkit.core.threat import Norm, Threat
from advkit.data.data import Data
from advkit.models.model import evaluation_mode

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")
ORDER = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}
Run = Callable[[], Tensor]


def ours(model: nn.Module, data: Data, x: Tensor, norm: Norm, options: argparse.Namespace) -> dict[str, Run]:
    """advkit's attacks."""
    trials = {"steps": options.steps // 2 * options.searches, "binary_searches": options.searches}
    steps = {"steps": options.steps}
    parameters: dict[str, dict[str, int]] = {
        "fab-t": {"steps": options.steps // options.targets, "targets": options.targets},
        "fmn-t": {"steps": options.steps // options.targets, "targets": options.targets},
        "fmn": steps,
        "ddn": steps,
        "cw": trials,
        "ead": trials,
        "deepfool": steps,
        "sigma-zero": steps,
    }

    def run(name: str) -> Tensor:
        result = x.clone()

        def keep(found: Found) -> None:
            result[found.index] = found.x

        threat = Threat.whole(norm, x[0].numel())
        with evaluation_mode(model):
            attack = make(name, threat, parameters[name])
            search = searching(model, data, attack, name=name, seed=0, nearest=True)
            search.run(torch.arange(len(data)), keep)
        return result

    from advkit.attacks.attack import ATTACKS

    return {
        f"advkit {name}": lambda name=name: run(name)  # type: ignore[misc]
        for name in parameters
        if norm in ATTACKS.get(name).norms
    }


def adversarial_library(
    model: nn.Module, x: Tensor, y: Tensor, norm: Norm, options: argparse.Namespace
) -> dict[str, Run]:
    """adv_lib's; it asks for a plotting server's client, which is not needed here."""
    try:
        importlib.import_module("visdom")
    except ImportError:
        sys.modules["visdom"] = types.ModuleType("visdom")
        sys.modules["visdom"].Visdom = object  # type: ignore[attr-defined]
    from adv_lib import attacks

    steps, order, targets = options.steps, ORDER[norm], options.targets
    runs: dict[str, Run] = {"adv_lib fmn": lambda: attacks.fmn(model, x, y, norm=order, steps=steps)}
    if norm == "l0":
        runs["adv_lib sigma_zero"] = lambda: attacks.sigma_zero(model, x, y, num_steps=steps)
    else:
        runs["adv_lib fab"] = lambda: attacks.fab(
            model, x, y, norm=order, n_iter=steps // targets, targeted_restarts=True, restarts=targets
        )
    if norm == "l2":
        runs["adv_lib ddn"] = lambda: attacks.ddn(model, x, y, steps=steps, levels=None)
        runs["adv_lib cw"] = lambda: attacks.carlini_wagner_l2(
            model, x, y, max_iterations=steps // 2, binary_search_steps=options.searches
        )
    return runs


def foolbox(
    model: nn.Module, x: Tensor, y: Tensor, norm: Norm, options: argparse.Namespace
) -> dict[str, Run]:
    """foolbox's."""
    import foolbox

    known, steps = foolbox.attacks, options.steps
    fool = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    fmn = {
        "linf": known.LInfFMNAttack,
        "l2": known.L2FMNAttack,
        "l1": known.L1FMNAttack,
        "l0": known.L0FMNAttack,
    }[norm]
    chosen: dict[str, Any] = {"foolbox fmn": fmn(steps=steps)}
    if norm == "linf":
        chosen["foolbox deepfool"] = known.LinfDeepFoolAttack(steps=steps)
    if norm == "l2":
        chosen["foolbox deepfool"] = known.L2DeepFoolAttack(steps=steps)
    if norm == "l1":
        chosen["foolbox ead"] = known.EADAttack(
            steps=steps // 2, binary_search_steps=options.searches, decision_rule="L1"
        )
    return {
        name: lambda attack=attack: attack(fool, x, y, epsilons=None)[1]  # type: ignore[misc]
        for name, attack in chosen.items()
    }


def torchattacks(
    model: nn.Module, x: Tensor, y: Tensor, norm: Norm, options: argparse.Namespace
) -> dict[str, Run]:
    """torchattacks'. Its FAB stops at the first class inside eps; so the classes are attacked one by one."""
    import torchattacks

    threat = Threat.whole(norm, x[0].numel())

    def fab() -> Tensor:
        attack = torchattacks.FAB(
            model,
            norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[norm],
            eps=threat.eps,
            steps=options.steps // options.targets,
            n_classes=10,
            multi_targeted=True,
        )
        with torch.no_grad():
            right = model(x).argmax(1) == y
        best, nearest = x.clone(), x.new_full((len(x),), torch.inf)
        for rank in range(2, 2 + options.targets):
            attack.target_class = rank
            found = x.clone()
            found[right] = attack.attack_single_run_targeted(x[right], y[right]).detach()
            reached = distances(model, found, x, y, threat)
            best[reached < nearest] = found[reached < nearest]
            nearest = torch.minimum(nearest, reached)
        return best

    runs: dict[str, Run] = {} if norm == "l0" else {"torchattacks fab": fab}
    if norm == "l2":
        steps = options.steps // 2 * options.searches
        runs["torchattacks cw"] = lambda: torchattacks.CW(model, steps=steps)(x, y)
        runs["torchattacks deepfool"] = lambda: torchattacks.DeepFool(model, steps=options.steps)(x, y)
    return runs


@torch.no_grad()
def distances(model: nn.Module, found: Tensor, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """(N,) of the returned images: 0 where nothing was to be done, infinite where nothing was achieved."""
    reached = torch.where(model(found).argmax(1) != y, threat.distance(found, x), torch.inf)
    return torch.where(model(x).argmax(1) != y, 0.0, reached)


def optimality(reached: Tensor, nearest: Tensor) -> float:
    """Local optimality: 1 where the distances (N,) are the ``nearest`` (N,) that are known, 0 where none is
    below the largest of these.

    Both areas end at the largest of the finite nearest distances. NaN where they are empty.
    """
    known = nearest[nearest > 0]
    most = known[known.isfinite()].amax() if known.isfinite().any() else nearest.new_tensor(torch.nan)
    return float((most - reached[nearest > 0]).clamp(min=0).sum() / (most - known).clamp(min=0).sum())


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--searches", type=int, default=9)
    parser.add_argument("--norms", nargs="*", default=NORMS, choices=NORMS)
    parser.add_argument("--only", help="names that contain this")
    options = parser.parse_args()
    model = load_model(options.model, role="classifier", shape=(1, 28, 28)).eval()
    data = load_data("mnist").take(torch.arange(options.n))
    x, y = data.batch(torch.arange(options.n), "cpu")
    print(f"n = {options.n}, {options.steps} steps, {torch.get_num_threads()} threads")
    print("| norm | attack | median distance | mean of all | failures | optimality | time |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for norm in options.norms:
        threat = Threat.whole(norm, x[0].numel())
        runs = ours(model, data, x, norm, options)
        for package in (adversarial_library, foolbox, torchattacks):
            try:
                runs |= package(model, x, y, norm, options)
            except ImportError as fault:
                print(f"{package.__name__}: {fault}", file=sys.stderr)
        found = measured(model, x, y, threat, runs, options.only or "")
        if not found:
            continue
        mine = [reached for name, (reached, _) in found.items() if name.startswith("advkit")]
        if mine:
            found["advkit, the nearest of all"] = (torch.stack(mine).amin(0), 0.0)
        nearest = torch.stack([reached for reached, _ in found.values()]).amin(0)
        for name, (reached, seconds) in found.items():
            failed = int(reached.isinf().sum())
            mean = f"{float(reached.mean()):.4g}" if failed == 0 else ""
            share = f"{optimality(reached, nearest):.3f}"
            row = (norm, name, f"{float(reached.median()):.4g}", mean, failed, share, f"{seconds:.1f} s")
            print("|", " | ".join(map(str, row)), "|", flush=True)


def measured(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, runs: dict[str, Run], only: str
) -> dict[str, tuple[Tensor, float]]:
    """Distances (N,) and seconds of each attack whose name contains ``only``."""
    found = {}
    for name, run in runs.items():
        if only not in name:
            continue
        begun = time.perf_counter()
        try:
            images = run().detach().clamp(0, 1)
        except Exception as fault:  # a package that breaks must not end the others' measurement
            print(f"{threat.norm} {name} does not run: {type(fault).__name__}: {fault}", file=sys.stderr)
            continue
        found[name] = (distances(model, images, x, y, threat), time.perf_counter() - begun)
    return found


if __name__ == "__main__":
    main()
