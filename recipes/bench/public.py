"""Against the public packages, on the same model and images, by turns in one run.

    pip install torchattacks foolbox
    python recipes/bench/public.py MODEL pgd --n 1000
    python recipes/bench/public.py MODEL autoattack --n 200

MODEL is whatever `advkit.load_model` takes, for 28x28 grey images; MNIST must be where ADVKIT_DATA says.
Expected time on 2 cores: `pgd` two minutes for 1,000 images, `autoattack` six for 200.

`pgd`: 40 steps of eps/16 from one random start, no early exit anywhere, batches of 100 for the packages.
`autoattack`: the standard version by torchattacks, by advkit, and advkit's cascade. Every robust accuracy is
counted afterwards by the model itself on the tensors that came back. Ratios are of the wall time of each over
that of torchattacks in the same turn: the median over the turns, the least and the greatest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from advkit import evaluate, load_data, load_model
from advkit.attacks.perturb import fixed
from advkit.core import memory
from advkit.core.threat import Threat

STEPS = 40
BATCH = 100
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


def autoattack(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> dict[str, Run]:
    """The standard evaluation, and the cascade."""
    import torchattacks

    theirs = torchattacks.AutoAttack(model, norm="Linf", eps=threat.eps, version="standard", n_classes=10)

    def advkit(attack: str, precision: str) -> Tensor:
        result = evaluate(model, (x, y), threat, attack, precision=precision, keep=True)  # type: ignore[arg-type]
        for stage in result.stages:
            print(f"    {attack} {stage.name}: broke {stage.broken} of {stage.attacked}")
        assert result.adversarial is not None
        return result.adversarial

    return {
        "torchattacks": lambda: theirs(x, y),
        "advkit autoattack": lambda: advkit("autoattack", "auto"),
        "advkit autoattack float32": lambda: advkit("autoattack", "float32"),
        "advkit cascade": lambda: advkit("cascade", "auto"),
    }


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("model")
    options.add_argument("work", choices=("pgd", "autoattack"))
    options.add_argument("--n", type=int, default=200)
    options.add_argument("--eps", type=float, default=0.3)
    options.add_argument("--repetitions", type=int, default=1)
    options.add_argument("--only", nargs="*", help="leave the others out")
    chosen = options.parse_args()
    model = load_model(chosen.model, role="classifier", shape=(1, 28, 28)).eval()
    x, y = load_data("mnist").limit(chosen.n).batch(torch.arange(chosen.n))
    runs = {"pgd": pgd, "autoattack": autoattack}[chosen.work](model, x, y, Threat("linf", chosen.eps))
    runs = {name: run for name, run in runs.items() if not chosen.only or name in chosen.only}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    robust: dict[str, int] = {}
    for _ in range(chosen.repetitions):
        for name, run in runs.items():
            begun = time.perf_counter()
            adversarial = run()
            seconds[name].append(time.perf_counter() - begun)
            with torch.no_grad():
                robust[name] = int((model(adversarial).argmax(1) == y).sum())
            print(f"  {name}: {seconds[name][-1]:.2f} s, {robust[name]} of {chosen.n}", flush=True)
    reference = seconds.get("torchattacks", next(iter(seconds.values())))
    print(f"{chosen.work}, linf {chosen.eps}, n = {chosen.n}, {torch.get_num_threads()} threads")
    for name, spent in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(spent, reference, strict=True)]
        print(
            f"{name:28} {robust[name] / chosen.n:7.2%} {statistics.median(spent):9.2f} s "
            f"{statistics.median(ratios):7.3f}x ({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
