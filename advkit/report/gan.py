"""The outcomes of ``gan-train`` and ``gan-eval``, from their results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advkit.core.stats import accuracy
from advkit.gan.evaluation.result import GRID_FILE, NEAREST_FILE, GanEvaluationResult, Judged
from advkit.gan.monitor import WON, warnings
from advkit.gan.result import GanTrainingResult
from advkit.report.figures.curves import GAN, course
from advkit.report.outcome import Outcome, Picture, Table
from advkit.report.training import data_flag

BALANCED = (0.45, 0.75)
"""Accuracy of the discriminator within which neither side is far ahead."""
SIDE = 20
"""Rows and columns of the last grid."""
SHOWN = 10
"""Number of classes up to which each one's share is shown."""
_BETTER = {"lower": "better: lower", "higher": "better: higher", "floor": "best: the floor"}

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


def trained(result: GanTrainingResult, folder: Path) -> Outcome:
    """The outcome of ``advkit gan-train``."""
    config, last, data = result.config, result.last, result.data.name
    shown = [name for name in COLUMNS if name in last and (name != "augmented" or config["augment"])]
    row = (*(COLUMNS[name][1].format(last[name]) for name in shown), f"{result.images_per_second:,.0f}")
    what = {"gan": "a GAN", "vae": "a VAE"}[config["kind"]]
    balance = (_balance(last["d_accuracy"]),) if "d_accuracy" in last else ()
    return Outcome(
        title=f"{what} of {data}: {config['arch']}, {config['steps']:,} steps",
        sentences=(
            *balance,
            f"Diversity of the EMA generator's samples: {last['diversity']:.0%} of that of real images.",
            f"Best EMA generator by {BY[result.best.by]}: step {result.best.step:,}.",
            *(sentence.capitalize() + "." for sentence in warnings(last).values()),
            f"In the model store as {', '.join(model.name for model in result.models.values())}.",
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
            *course(folder, GAN, "Losses during training.", steady=True),
            *course(
                folder,
                {"d_accuracy": "D accuracy"},
                "What the discriminator classified correctly, real or generated; 50 % is balance.",
                name="accuracy",
                steady=True,
            ),
            Picture(
                "interpolation", folder / "interpolation.png", "Each row interpolates between two samples."
            ),
            Picture(
                "training", folder / "training.gif", "Samples from fixed latent vectors during training."
            ),
        ),
        files=(*(folder / f"{name}.safetensors" for name in result.models), folder),
        next=tuple(_next(config, {key: model.name for key, model in result.models.items()}, data)),
        stored=result,
    )


def _next(config: Mapping[str, Any], names: Mapping[str, str], data: str) -> list[str]:
    last = names.get("discriminator", names["ema"])
    commands = [
        f"advkit gan-sample --model {names['ema']} --n 400 --out {data}.png",
        f"advkit models lineage {last}",
    ]
    if config["kind"] == "gan" and config["packing"] == 1 and config["conditional"] == "no":
        commands.insert(1, f"advkit finetune --model {last}{data_flag(config)} --out clf.pt")
    return commands


def _balance(share: float) -> str:
    """The balance of generator and discriminator, by the discriminator's accuracy."""
    found = f"The discriminator classified {share:.0%} of the images correctly"
    if share > WON:
        return f"{found}: near 100 % the generator is too weak to learn much."
    if share > BALANCED[1]:
        return f"{found}: ahead of the generator (50 % is balance, near 100 % the generator is too weak)."
    if share < BALANCED[0]:
        return f"{found}, fewer than by guessing: it is too weak; try a larger --rate-discriminator."
    return f"{found}: near balance (50 %, where it can only guess; near 100 % the generator is too weak)."


def evaluated(result: GanEvaluationResult, folder: Path) -> Outcome:
    """The outcome of ``advkit gan-eval``, for one generator or several."""
    several = len(result.generators) > 1
    names = [one.name for one in result.generators]
    sentences = [
        f"n = {result.n:,} generated images each, against as many test images of {result.real.name}. The "
        "floor is the same figure of real training images, that of a perfect generator.",
        f"Judge {result.judge[:12]}: its FID and KID compare only with those of the same judge and n.",
        *(
            []
            if (right := result.judge_accuracy) is None
            else [f"Its accuracy on the real images is {accuracy(round(right * result.n), result.n)}."]
        ),
        *(f"Skipped: {name}, since {reason}." for name, reason in result.skipped.items()),
    ]
    tables = [_figures(result), _networks(result)]
    if len(result.class_names) <= SHOWN and any(one.histogram for one in result.generators):
        tables.append(_classes(result))
    pictures = []
    for one in result.generators:
        own = folder / one.folder
        pictures += [
            Picture(f"images of {one.name}", own / GRID_FILE, "The first samples, not chosen."),
            Picture(
                f"nearest of {one.name}",
                own / NEAREST_FILE,
                "Above, the samples that are nearest to a training image; below, those images.",
            ),
        ]
    pictures.append(Picture("real images", folder / "real.png", f"Of {result.real.name}'s test split."))
    return Outcome(
        title=f"comparison of generators: {', '.join(names)}" if several else f"evaluation of {names[0]}",
        sentences=tuple(sentences),
        tables=tuple(tables),
        pictures=tuple(pictures),
        files=(folder,),
        next=tuple(
            f"advkit gan-sample --model {shlex.quote(name)} --n 400 --out more.png" for name in names[:1]
        ),
        stored=result,
    )


def _figures(result: GanEvaluationResult) -> Table:
    rows = [
        (
            figure.name,
            *(figure.written(one.values.get(figure.key), result.n) for one in result.generators),
            figure.written(figure.floor, result.n),
            _BETTER[figure.better],
        )
        for figure in result.figures
    ]
    named = [one.name for one in result.generators] if len(result.generators) > 1 else ["generated"]
    return Table(f"figures, n = {result.n:,}", ("", *named, "floor", ""), tuple(rows))


def _networks(result: GanEvaluationResult) -> Table:
    rows = [
        (
            one.name,
            one.architecture,
            f"{one.parameters:,}",
            "-" if one.images_seen is None else f"{one.images_seen:,}",
            "-" if one.training_seconds is None else f"{one.training_seconds / 60:.1f} min",
        )
        for one in result.generators
    ]
    columns = ("model", "network", "parameters", "images seen", "trained for")
    return Table("networks", columns, tuple(rows))


def _classes(result: GanEvaluationResult) -> Table:
    def share(one: Judged, index: int) -> str:
        return f"{one.histogram[index]:.1%}".replace("%", " %") if one.histogram else "-"

    rows = [
        (
            name,
            *(share(one, index) for one in result.generators),
            f"{result.real_histogram[index]:.1%}".replace("%", " %"),
        )
        for index, name in enumerate(result.class_names)
    ]
    named = [one.name for one in result.generators] if len(result.generators) > 1 else ["generated"]
    return Table("classes predicted by the judge", ("class", *named, "real"), tuple(rows))
