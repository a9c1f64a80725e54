"""What the attacks that see scores only find at equal numbers of queries.

    python recipes/bench/black_box.py --model MODEL.pt --norm linf --eps 0.2

Expected time: a few minutes for 100 MNIST images, 1,000 queries and a small convolutional network on a CPU.
Every correctly classified image of the first ``--n`` is attacked by each attack with at most ``--queries``
queries. Printed are the images broken, the mean and median queries of those, and the mean over all images.
Where torchattacks is installed, ``--public`` adds its Square, with the same schedule and limit (it does not
tell the queries of an image).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from advkit import Threat, load_data, load_model
from advkit.attacks.attack import ATTACKS
from advkit.attacks.engine.search import Found
from advkit.attacks.perturb import logits_of, make, searching
from advkit.models.model import evaluation_mode


def main() -> None:
    """Measures and prints."""
    scores = [entry.name for entry in ATTACKS if entry.thing.access == "scores"]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--model", required=True)
    options.add_argument("--data", default="mnist")
    options.add_argument("--n", type=int, default=100)
    options.add_argument("--norm", default="linf")
    options.add_argument("--eps", default="0.2")
    options.add_argument("--queries", type=int, default=1000)
    options.add_argument("--attacks", default=",".join(scores))
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--public", action="store_true", help="torchattacks' Square too")
    chosen = options.parse_args()
    threat = Threat(chosen.norm, chosen.eps)
    data = load_data(chosen.data).take(torch.arange(chosen.n))
    model = load_model(chosen.model, role="classifier", shape=data.shape)
    with evaluation_mode(model):
        clean = logits_of(model, data)
        right = (clean.argmax(1) == data.labels).nonzero()[:, 0]
        print(f"{threat}, {len(right)} images, at most {chosen.queries:,} queries each")
        print("attack                 broken   mean  median   mean of all   seconds")
        for name in chosen.attacks.split(","):
            if threat.norm not in ATTACKS.get(name).norms:
                continue
            found: list[Found] = []
            attack = make(name, threat, {"queries": chosen.queries})
            begun = time.perf_counter()
            search = searching(model, data, attack, name=name, seed=chosen.seed, clean=clean)
            search.run(right, found.append)
            seconds = time.perf_counter() - begun
            spent = [one.forwards - 1 for one in found if one.broken] or [0]
            overall = statistics.mean(min(one.forwards - 1, chosen.queries) for one in found)
            print(
                f"{name:20} {sum(one.broken for one in found):8} {statistics.mean(spent):6.0f}"
                f"{statistics.median(spent):8.0f}{overall:14.0f}{seconds:10.1f}",
                flush=True,
            )
        public = {"linf": "Linf", "l2": "L2"}.get(chosen.norm)
        if chosen.public and public:
            import torchattacks

            x, y = data.batch(right, "cpu")
            begun = time.perf_counter()
            square = torchattacks.Square(
                model,
                norm=public,
                eps=threat.eps,
                n_queries=chosen.queries,
                resc_schedule=False,
                seed=chosen.seed,
            )
            with torch.no_grad():
                broken = int((model(square(x, y)).argmax(1) != y).sum())
            print(f"{'torchattacks square':20} {broken:8}{time.perf_counter() - begun:38.1f}")


if __name__ == "__main__":
    main()
