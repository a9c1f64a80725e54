"""All losses of the GAN on the same network, after as many real images: quality by the judge, and cost.

    python recipes/bench/gan_losses.py --out losses --steps 2000
    python recipes/bench/gan_losses.py --out modes --data stacked-mnist --arch dcgan --steps 3000 \
        --n 26000 --metrics modes fid

Trains the pair once for each registered loss, one after the other, each with the published optimiser
of its game where that is not the default, then measures all averages side by side (`advkit gan-eval`).
Where a game gives its critic several updates, the generator gets fewer, so that all have seen as many real
images. A run that was killed goes on with the same command. Expected time on one core: 50 minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from advkit.cli.draw import Drawn
from advkit.commands.gan_eval import run as compare
from advkit.commands.gan_train import run as train
from advkit.core.context import Context
from advkit.core.errors import UserError
from advkit.gan.evaluation.settings import GanEvaluation
from advkit.gan.loss import GAN_LOSSES
from advkit.gan.settings import GanTraining

GAMES: dict[str, dict[str, Any]] = {
    # Gulrajani et al. 2017, algorithm 1
    "wasserstein": {
        "discriminator_steps": 5,
        "rate_generator": 1e-4,
        "rate_discriminator": 1e-4,
        "beta1": 0.0,
        "beta2": 0.9,
    },
    # Huang et al. 2024, whose gamma of 1 is for pixels from -1 to 1: a quarter of that here
    "relativistic": {
        "beta1": 0.0,
        "beta2": 0.99,
        "regularisation": {"r1": {"weight": 0.25}, "r2": {"weight": 0.25}},
    },
}
"""What a game wants that is not the default."""


def main() -> None:
    """Trains, measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("losses"))
    options.add_argument("--data", default="mnist")
    options.add_argument("--arch", default="conv-gan")
    options.add_argument("--steps", type=int, default=2000, help="batches of 64 real images for each loss")
    options.add_argument("--n", type=int, default=10_000, help="images that are measured")
    options.add_argument("--metrics", nargs="*", default=(), help="all, if none is named")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", nargs="*", help="these losses")
    chosen = options.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    with Drawn(Console(stderr=True)) as progress:
        for loss in chosen.only or [entry.name for entry in GAN_LOSSES]:
            own = GAMES.get(loss, {})
            settings = GanTraining(
                data=chosen.data,
                arch=chosen.arch,
                loss=loss,
                steps=chosen.steps // own.get("discriminator_steps", 1),
                seed=chosen.seed,
                name=f"{chosen.data}-{loss}",
                **own,
            )
            folder = chosen.out / loss
            progress.say(f"{loss}: {settings.steps:,} steps")
            try:
                rows[loss] = train(settings, Context(out=folder, progress=progress)).result
            except UserError as fault:  # a game may diverge; the others go on
                print(f"{loss}: {fault}")
        folders = tuple(str(chosen.out / loss / "ema.safetensors") for loss in rows)
        judging = GanEvaluation(
            model=folders,
            data=chosen.data,
            n=chosen.n,
            metrics=tuple(chosen.metrics),
            seed=chosen.seed,
        )
        judged = compare(judging, Context(out=chosen.out / "compared", progress=progress)).result
    (chosen.out / "losses.json").write_text(json.dumps({"trained": rows, "judged": judged}, indent=2) + "\n")
    keys = [figure["key"] for figure in judged["figures"]]
    print(f"{'':20}{'seconds':>9}" + "".join(f"{key:>10.9}" for key in keys))
    floors = {figure["key"]: figure["floor"] for figure in judged["figures"]}
    print(f"{'floor':20}{'':>9}" + "".join(f"{floors[key]:10.3f}" for key in keys))
    for (loss, row), one in zip(rows.items(), judged["generators"], strict=True):
        values = "".join(f"{one['values'][key]:10.3f}" for key in keys)
        print(f"{loss:20}{row['seconds']:9.0f}{values}")


if __name__ == "__main__":
    main()
