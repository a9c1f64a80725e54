"""Against the public packages, on the same model and images, by turns in one run.

    pip install torchattacks foolbox
    python recipes/bench/public.py MODEL pgd --n 1000
    python recipes/bench/public.py MODEL autoattack --n 200 --reference auto-attack
    python recipes/bench/public.py MODEL apgd-ce apgd-t fab-t square --n 200 --reference auto-attack

MODEL is whatever `advkit.load_model` takes, for 28x28 grey images; MNIST must be where ADVKIT_DATA says, and
FOLDER of `--reference FOLDER` a checkout of the reference AutoAttack (github.com/fra31/auto-attack).
Expected time on 2 cores: `pgd` two minutes for 1,000 images, `autoattack` fifteen for 200, the four attacks
twenty.

`pgd`: 40 steps of eps/16 from one random start, no early exit anywhere, batches of 100 for the packages.
`autoattack`: the standard version by the reference, by advkit, and advkit's cascade with all of its checks.
`apgd-ce`, `apgd-t`, `fab-t`, `square`: one attack, of 100 steps (toward each of 9 classes) or 5,000 queries,
from one start; *bare* makes as many forward and backward passes as advkit's, in batches of all images, of the
model as it is. Every robust accuracy is counted afterwards by the model itself on the tensors that came back.
Ratios are of the wall time of each over that of the first in the same turn: the median over the turns, the
least and the greatest. Processors without bfloat16: ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advkit import evaluate, load_data, load_model, perturb
from advkit.attacks.perturb import fixed
from advkit.core import memory
from advkit.core.threat import Threat

STEPS = 40
BATCH = 100
STEPS_OF_AUTOATTACK, QUERIES = 100, 5000
ALONE = ("apgd-ce", "apgd-t", "fab-t", "square")
Run = Callable[[], Tensor]


def batched(attack: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The attack on batches, as its package would be used."""
    return torch.cat([attack(*part) for part in zip(x.split(BATCH), y.split(BATCH), strict=True)])


def pgd(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> dict[str, Run]:
    """PGD by everybody."""
    import foolbox
    import torchattacks
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    size = threat.eps / 16
    ours = {"steps": STEPS, "step_size": size}
    ids = torch.arange(len(x))

    def advkit(precision: str) -> Tensor:
        with memory.kept():
            parts = [
                fixed(model, a, b, threat=threat, parameters=ours, ids=i, seed=0, precision=precision)  # type: ignore[arg-type]
                for a, b, i in zip(x.split(BATCH), y.split(BATCH), ids.split(BATCH), strict=True)
            ]
        return torch.cat(parts)

    fool = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    fool_pgd = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=STEPS)
    art = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
    )
    art_pgd = ProjectedGradientDescentPyTorch(
        art, eps=threat.eps, eps_step=size, max_iter=STEPS, num_random_init=1, batch_size=BATCH, verbose=False
    )
    torch_pgd = torchattacks.PGD(model, eps=threat.eps, alpha=size, steps=STEPS)
    return {
        "torchattacks": lambda: batched(torch_pgd, x, y),
        "foolbox": lambda: batched(lambda a, b: fool_pgd(fool, a, b, epsilons=threat.eps)[1], x, y),
        "ART": lambda: torch.from_numpy(art_pgd.generate(x.numpy(), y.numpy())),
        "advkit float32": lambda: advkit("float32"),
        "advkit bfloat16": lambda: advkit("bfloat16"),
    }


def standard(folder: Path, model: nn.Module, threat: Threat) -> Any:
    """The reference implementation's standard evaluation."""
    sys.path.insert(0, str(folder))
    from autoattack import AutoAttack

    return AutoAttack(
        model, norm="Linf", eps=threat.eps, version="standard", device="cpu", seed=0, verbose=False
    )


def autoattack(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, folder: Path) -> dict[str, Run]:
    """The standard evaluation, and the cascade."""
    theirs = standard(folder, model, threat)

    def advkit(attack: str, precision: str) -> Tensor:
        result = evaluate(model, (x, y), threat, attack, precision=precision, keep=True, progress=False)  # type: ignore[arg-type]
        print(f"    {attack}: {result.forwards:,} forwards and {result.backwards:,} backwards")
        assert result.adversarial is not None
        return result.adversarial

    ours = [(name, precision) for name in ("autoattack", "cascade") for precision in ("float32", "auto")]
    return {"reference": lambda: theirs.run_standard_evaluation(x, y, bs=len(x))} | {
        f"advkit {name} {precision}": partial(advkit, name, precision) for name, precision in ours
    }


def alone(
    attack: str, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, folder: Path
) -> dict[str, Run]:
    """One attack of the standard evaluation, with its parameters there."""
    import torchattacks

    theirs = standard(folder, model, threat)
    theirs.attacks_to_run = [attack]
    budget = {"eps": threat.eps, "norm": "Linf", "n_restarts": 1}
    made = {
        "apgd-ce": lambda: torchattacks.APGD(model, steps=STEPS_OF_AUTOATTACK, loss="ce", **budget),
        "apgd-t": lambda: torchattacks.APGDT(model, steps=STEPS_OF_AUTOATTACK, n_classes=10, **budget),
        "fab-t": lambda: torchattacks.FAB(
            model, steps=STEPS_OF_AUTOATTACK, n_classes=10, multi_targeted=True, **budget
        ),
        "square": lambda: torchattacks.Square(model, n_queries=QUERIES, **budget),
    }[attack]()
    ours = {"queries": QUERIES} if attack == "square" else {"steps": STEPS_OF_AUTOATTACK}
    spent: dict[str, int] = {}

    def advkit(precision: str) -> Tensor:
        found = perturb(model, x, y, threat, attack, parameters=ours, precision=precision, progress=False)  # type: ignore[arg-type]
        spent.update(forwards=int(found.forwards.sum()), backwards=int(found.backwards.sum()))
        return found.x

    def bare() -> Tensor:
        for _ in range(round(spent["backwards"] / len(x))):
            images = x.clone().requires_grad_()
            torch.autograd.grad(model(images).sum(), images)
        with torch.no_grad():
            for _ in range(round((spent["forwards"] - spent["backwards"]) / len(x))):
                model(x)
        return x

    return {
        "reference": lambda: theirs.run_standard_evaluation(x, y, bs=len(x)),
        "torchattacks": lambda: made(x, y),
        "advkit float32": lambda: advkit("float32"),
        "bare": bare,
        "advkit auto": lambda: advkit("auto"),
    }


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("model")
    options.add_argument("work", nargs="+", choices=("pgd", "autoattack", *ALONE))
    options.add_argument("--n", type=int, default=200)
    options.add_argument("--eps", type=float, default=0.3)
    options.add_argument("--repetitions", type=int, default=1)
    options.add_argument("--only", nargs="*", help="leave the others out")
    options.add_argument("--reference", type=Path, default=Path("auto-attack"))
    chosen = options.parse_args()
    model = load_model(chosen.model, role="classifier", shape=(1, 28, 28)).eval()
    x, y = load_data("mnist").limit(chosen.n).batch(torch.arange(chosen.n))
    threat = Threat("linf", chosen.eps)
    for work in chosen.work:
        if work == "pgd":
            runs = pgd(model, x, y, threat)
        elif work == "autoattack":
            runs = autoattack(model, x, y, threat, chosen.reference)
        else:
            runs = alone(work, model, x, y, threat, chosen.reference)
        runs = {name: run for name, run in runs.items() if not chosen.only or name in chosen.only}
        measure(f"{work}, {threat}", runs, model, y, chosen.repetitions)


def measure(what: str, runs: dict[str, Run], model: nn.Module, y: Tensor, repetitions: int) -> None:
    """Runs by turns, and prints times, ratios and what is left."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    robust: dict[str, int] = {}
    for _ in range(repetitions):
        for name, run in runs.items():
            begun = time.perf_counter()
            adversarial = run()
            seconds[name].append(time.perf_counter() - begun)
            with torch.no_grad():
                robust[name] = int((model(adversarial).argmax(1) == y).sum())
            print(f"  {name}: {seconds[name][-1]:.2f} s, {robust[name]} of {len(y)}", flush=True)
    first = next(iter(seconds.values()))
    print(
        f"{what}, n = {len(y)}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    )
    for name, spent in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(spent, first, strict=True)]
        print(
            f"{name:28} {robust[name] / len(y):7.2%} {statistics.median(spent):9.2f} s "
            f"{statistics.median(ratios):7.3f}x ({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
