"""The outcome of GAN training: sentences, a table, and next commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advkit.gan.monitor import WON, covered, warnings
from advkit.report.outcome import Outcome, Picture, Table

RECENT = 500
"""Steps at the end of training whose mean is reported."""
BALANCED = (0.45, 0.75)
"""Accuracy of the discriminator within which neither side is far ahead."""
SIDE = 20
"""Rows and columns of the last grid."""

COLUMNS = {
    "d_loss": ("D loss", "{:.3f}"),
    "d_accuracy_real": ("D accuracy on real", "{:.1%}"),
    "d_accuracy_fake": ("on generated", "{:.1%}"),
    "g_loss": ("G loss", "{:.3f}"),
    "augmented": ("augmented", "{:.0%}"),
    "loss": ("loss", "{:.2f}"),
    "reconstruction": ("reconstruction", "{:.2f}"),
    "divergence": ("divergence", "{:.2f}"),
    "diversity": ("diversity", "{:.0%}"),
    "diversity_within": ("diversity within classes", "{:.0%}"),
    "fid": ("FID", "{:.2f}"),
    "coverage": ("coverage", "{:.0%}"),
}
"""Figures of a table, by their names: heading and how they are written."""
BY = {"fid": "FID", "coverage": "coverage"}


def recent(rows: Sequence[Mapping[str, Any]], figures: Sequence[str]) -> dict[str, float]:
    """Means over the last steps, a row counting as the steps that it covers; what is known of the samples is
    that of the last ones."""
    first = rows[-1]["step"] - RECENT
    chosen = [(count, row) for count, row in zip(covered(rows), rows, strict=True) if row["step"] > first]
    steps = sum(count for count, _ in chosen)
    means = {name: sum(count * row[name] for count, row in chosen) / steps for name in figures}
    looked = ("diversity", "diversity_within", "fid", "coverage", "missing")
    samples = {name: rows[-1][name] for name in looked if name in rows[-1]}
    return {"steps": steps, **means, **samples}


def trained(result: Mapping[str, Any], folder: Path) -> Outcome:
    """The outcome; the same for a finished run."""
    config, models, last = result["config"], result["models"], result["last"]
    shown = [name for name in COLUMNS if name in last and (name != "augmented" or config["augment"])]
    row = (*(COLUMNS[name][1].format(last[name]) for name in shown), f"{result['images_per_second']:,.0f}")
    what = {"gan": "a GAN", "vae": "a VAE"}[config["kind"]]
    balance = (_balance(last["d_accuracy"]),) if "d_accuracy" in last else ()
    return Outcome(
        title=f"{what} of {result['data']['name']}: {config['arch']}, {config['steps']:,} steps",
        sentences=(
            *balance,
            f"Diversity of the EMA generator's samples: {last['diversity']:.0%} of that of real images.",
            f"Best EMA generator by {BY[result['best']['by']]}: step {result['best']['step']:,}.",
            *(sentence.capitalize() + "." for sentence in warnings(last).values()),
            f"In the model store as {', '.join(model['name'] for model in models.values())}.",
        ),
        tables=(
            Table(
                f"means over the last {last['steps']:,} steps",
                (*(COLUMNS[name][0] for name in shown), "images/s"),
                (row,),
            ),
        ),
        pictures=(
            Picture("generated images", folder / "grid.png", f"{SIDE * SIDE} samples of the EMA generator."),
            Picture("curves", folder / "curves.png", "Losses and accuracy by step."),
            Picture(
                "interpolation", folder / "interpolation.png", "Each row interpolates between two samples."
            ),
            Picture(
                "training", folder / "training.gif", "Samples from fixed latent vectors during training."
            ),
        ),
        files=(*(folder / f"{name}.safetensors" for name in models), folder),
        next=_next(config, models, result["data"]["name"]),
        result=dict(result),
    )


def _next(config: Mapping[str, Any], models: Mapping[str, Any], data: str) -> tuple[str, ...]:
    ema, flag = models["ema"]["name"], _data_flag(config)
    draw = f"advkit gan-sample --model {ema} --n 400 --out {data}.png"
    if config["kind"] == "vae":
        return (draw, f"advkit models lineage {ema}")
    discriminator = models["discriminator"]["name"]
    lineage = f"advkit models lineage {discriminator}"
    if config["packing"] > 1 or config["conditional"] != "no":
        return (draw, lineage)
    return (draw, f"advkit finetune --model {discriminator}{flag} --out clf.pt", lineage)


def _data_flag(config: Mapping[str, Any]) -> str:
    return "" if config["data"] == "digits" else f" --data {shlex.quote(config['data'])}"


def _balance(accuracy: float) -> str:
    """The balance of generator and discriminator, by the discriminator's accuracy."""
    found = f"The discriminator classified {accuracy:.0%} of the images correctly"
    if accuracy > WON:
        return f"{found}: near 100 % the generator is too weak to learn much."
    if accuracy > BALANCED[1]:
        return f"{found}: ahead of the generator (50 % is balance, near 100 % the generator is too weak)."
    if accuracy < BALANCED[0]:
        return f"{found}, fewer than by guessing: it is too weak; try a larger --rate-discriminator."
    return f"{found}: near balance (50 %, where it can only guess; near 100 % the generator is too weak)."
