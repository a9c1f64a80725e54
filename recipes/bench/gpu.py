"""What advkit does on a GPU: the same verdicts as on the CPU, no waiting in inner loops, and how fast.

    python recipes/bench/gpu.py MODEL --data mnist                      # on the GPU, compared with the CPU
    python recipes/bench/gpu.py MODEL --data mnist --device cpu --n 20  # tries the script itself

MODEL is whatever `advkit.load_model` takes; ``--reference FOLDER`` is a checkout of the reference AutoAttack
(github.com/fra31/auto-attack). Expected time on a data-centre GPU: 4 minutes, most of it the reference.

`verdicts`: attacks in three norms on both devices, counting images with another status. `waits`: how often a
step of each attack makes the CPU wait for the GPU (PyTorch's synchronisation warnings at 40 steps less those
at 20, over 20). `memory`: an evaluation whose batch does not fit. `layers`: recurrent layers, TF32 in
proofs. `speed`: `autoattack` and `cascade` against the reference, the same images, in this run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import advkit
from advkit import Threat
from advkit.core.device import coarse_float32
from advkit.core.runs import environment

PARTS = ("verdicts", "waits", "memory", "layers", "speed")
RADII = {"linf": 0.3, "l2": 2.0, "l1": 10.0}
ITERATED: dict[str, str] = {
    "pgd": "steps", "apgd-ce": "steps", "apgd-t": "steps", "fab-t": "steps", "square": "queries",
    "mi-fgsm": "steps", "cw": "steps", "ddn": "steps", "fmn": "steps",
}  # fmt: skip
"""Attacks whose steps are looked at, with the name of the parameter that says how many there are."""


def timed(run: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """(what ``run`` returns, seconds on the wall)."""
    begun = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - begun


def differing(one: Iterable[Any], other: Iterable[Any]) -> int:
    """On how many images two evaluations have another status."""
    return sum(a.status != b.status for a, b in zip(one, other, strict=True))


def verdicts(models: Mapping[str, nn.Module], data: Any, n: int) -> Iterable[dict[str, Any]]:
    """Each attack on both devices."""
    plans = [("linf", name) for name in ("pgd", "apgd-ce", "apgd-t", "fab-t", "square", "cascade")]
    plans += [("l2", name) for name in ("pgd", "ddn", "cascade")] + [("l1", "cascade")]
    for norm, attack in plans:
        threat, results = Threat(norm, RADII[norm]), {}
        parameters = {"square": {"queries": 500}} if attack == "square" else None
        row: dict[str, Any] = {"norm": norm, "attack": attack, "n": n}
        for where, model in models.items():
            device = torch.device(where)
            how = {"n": n, "precision": "float32", "parameters": parameters, "progress": False}
            results[where], seconds = timed(
                lambda m=model, t=threat, a=attack, h=how: advkit.evaluate(m, data, t, a, **h), device
            )
            row[where] = {"robust": results[where].robust_accuracy, "seconds": round(seconds, 2)}
        row["differ"] = (
            differing(*(result.verdicts for result in results.values())) if len(results) > 1 else 0
        )
        yield row


def warned(run: Callable[[], object]) -> Counter[str]:
    """Where the CPU waited for the GPU while ``run`` ran, and how often."""
    torch.cuda.set_sync_debug_mode("warn")
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found = [each for each in caught if "synchroniz" in str(each.message)]
    return Counter(f"{Path(each.filename).name}:{each.lineno}" for each in found)


def waits(model: nn.Module, x: Tensor, y: Tensor) -> Iterable[dict[str, Any]]:
    """Waits a step of each attack."""
    for attack, count in ITERATED.items():
        threat = Threat("linf" if attack not in ("cw", "ddn") else "l2", 0.05)

        def once(
            steps: int, attack: str = attack, count: str = count, threat: Threat = threat
        ) -> Counter[str]:
            given = {count: steps}
            return warned(
                lambda: advkit.perturb(model, x, y, threat, attack, parameters=given, batch_size=len(x))
            )

        try:
            once(20)
            few, many = once(20), once(40)
        except advkit.UserError as error:
            yield {"attack": attack, "fails": str(error)}
            continue
        more = many - few
        each = {"attack": attack, "waits a step": more.total() / 20, "in 20 steps": few.total()}
        yield each | {"where": dict(more.most_common(4))}


def fits(model: nn.Module, data: Any, n: int) -> Iterable[dict[str, Any]]:
    """An evaluation in a batch that the memory does not hold, against one that it holds."""
    threat, how = Threat("linf", 0.1), {"n": n, "precision": "float32", "progress": False}
    plain = advkit.evaluate(model, data, threat, "pgd", **how)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        tight = advkit.evaluate(model, data, threat, "pgd", batch_size=n, **how)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    yield {"batch": n, "MiB": 256, "differ": differing(plain.verdicts, tight.verdicts)}


class Recurrent(nn.Module):
    """Reads an image row by row."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.read = nn.LSTM(width, 32, num_layers=2, dropout=0.5, batch_first=True)
        self.say = nn.Linear(32 * height, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.say(self.read(x[:, 0])[0].flatten(1))


def layers(model: nn.Module, x: Tensor, y: Tensor, device: torch.device) -> Iterable[dict[str, Any]]:
    """A recurrent network on both devices; whether proofs notice TF32."""
    torch.manual_seed(0)
    found = {}
    for where in ("cpu", str(device)):
        torch.manual_seed(0)
        network = Recurrent(*x.shape[2:]).to(where).eval()
        classes = network(x.to(where)).argmax(1)
        found[where] = advkit.perturb(
            network, x.to(where), classes, Threat("linf", 0.1), precision="float32"
        ).success
    yield {"recurrent": {where: int(success.sum()) for where, success in found.items()}, "n": len(x)}
    yield {"coarse float32 by default": coarse_float32(device)}


def speed(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, device: torch.device, reference: Path | None
) -> Iterable[dict[str, Any]]:
    """The standard evaluation and the cascade against the reference implementation."""
    kind = {"linf": "Linf", "l2": "L2", "l1": "L1"}[threat.norm]
    base = None
    if reference is not None:
        sys.path.insert(0, str(reference))
        from autoattack import AutoAttack

        theirs = AutoAttack(model, norm=kind, eps=threat.eps, version="standard", device=device, seed=0)
        theirs.verbose = False
        adversarial, base = timed(lambda: theirs.run_standard_evaluation(x, y, bs=min(len(x), 1000)), device)
        with torch.no_grad():
            robust = float((model(adversarial.to(device)).argmax(1) == y.to(device)).float().mean())
        yield {
            "by": "reference",
            "threat": str(threat),
            "n": len(x),
            "robust": robust,
            "seconds": round(base, 2),
        }
    for attack in ("autoattack", "cascade"):
        for precision in ("float32", "auto"):
            result, seconds = timed(
                lambda a=attack, p=precision: advkit.evaluate(
                    model, (x.cpu(), y.cpu()), threat, a, precision=p, progress=False
                ),
                device,
            )
            row = {"by": f"{attack} {precision}", "threat": str(threat), "n": len(x)}
            row |= {
                "robust": result.robust_accuracy,
                "seconds": round(seconds, 2),
                "forwards": result.forwards,
            }
            yield row | ({"ratio": round(seconds / base, 3)} if base else {})


def main() -> None:
    """Measures and prints, one JSON object a line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("model")
    options.add_argument("--data", default="mnist")
    options.add_argument("--shape", type=int, nargs=3, default=(1, 28, 28))
    options.add_argument("--norm", default="linf", choices=RADII)
    options.add_argument("--eps", type=float)
    options.add_argument("--n", type=int, default=200)
    options.add_argument("--device", default="cuda")
    options.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    options.add_argument("--reference", type=Path)
    options.add_argument("--exact", action="store_true", help="float32 without TF32, everywhere")
    chosen = options.parse_args()
    device = torch.device(chosen.device)
    torch.backends.cudnn.allow_tf32 = not chosen.exact
    print(json.dumps({"environment": environment()}), flush=True)
    shape = tuple(chosen.shape)
    models = {
        str(d): advkit.load_model(chosen.model, shape=shape, device=str(d))
        for d in {device, torch.device("cpu")}
    }
    model = models[str(device)]
    data = advkit.load_data(chosen.data, limit=chosen.n, first=True)
    x, y = (part.to(device) for part in data.batch(torch.arange(len(data)), device))
    threat = Threat(chosen.norm, chosen.eps or RADII[chosen.norm])
    cuda = device.type == "cuda"
    parts: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
        "verdicts": lambda: verdicts(models, data, min(chosen.n, 200)),
        "waits": lambda: waits(model, x[:64], y[:64]) if cuda else (),
        "memory": lambda: fits(model, data, chosen.n) if cuda else (),
        "layers": lambda: layers(model, x[:50], y[:50], device),
        "speed": lambda: speed(model, x, y, threat, device, chosen.reference),
    }
    for part in chosen.parts:
        for row in parts[part]():
            print(json.dumps({"part": part} | row), flush=True)


if __name__ == "__main__":
    main()
