"""The outcome of ``corrupt``, from its result."""

from __future__ import annotations

from pathlib import Path

import torch

from advkit.attacks.perturb import device_of
from advkit.core.stats import accuracy, percent
from advkit.data.corruption import corrupted
from advkit.data.data import Data
from advkit.data.subjects import flags
from advkit.evaluation.corruptions.result import CorruptionAccuracy, CorruptionResult
from advkit.evaluation.corruptions.settings import Corruptions
from advkit.models.model import Model, evaluation_mode
from advkit.report.charts import Bar
from advkit.report.figures.corruptions import severities, write_gallery
from advkit.report.outcome import Outcome, Picture, Table, check_threshold, partial


def corruptions(
    config: Corruptions, result: CorruptionResult, pictures: tuple[Picture, ...], folder: Path
) -> Outcome:
    """The outcome of ``advkit corrupt``."""
    passed, said = check_threshold(
        config.min_accuracy, "mean accuracy under corruptions", result.mean_accuracy
    )
    subject = flags(config, result.data.name)
    weakest = min(result.corruptions, key=result.accuracy_of)
    return Outcome(
        title=f"common corruptions of images for {config.model}",
        sentences=(
            result.sentence,
            f"Lowest under {weakest}: {100 * result.accuracy_of(weakest):.1f} %.",
            *_unknown(result),
            *partial(result.status, result.n),
            *said,
        ),
        bars=_bars(result),
        tables=(_accuracies(result), *_relative(result)),
        pictures=pictures,
        files=(folder,),
        next=(f"advkit attack {subject}",),
        stored=result,
        passed=passed,
        judged=config.min_accuracy is not None,
    )


def _bars(result: CorruptionResult) -> tuple[Bar, ...]:
    """Clean, the mean, and the mean over the severities of each corruption."""
    mean, (low, high) = result.mean_accuracy, result.interval
    said = f"{100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    alone = ((name, result.accuracy_of(name)) for name in result.corruptions)
    return (
        Bar.of(f"clean accuracy, n = {result.n:,}", result.clean_correct, result.n, "grey"),
        Bar("mean under corruptions", ((mean, "blue"),), (low, high), said),
        *(Bar(name, ((value, "amber"),), None, f"{100 * value:.1f} %") for name, value in alone),
    )


def _accuracies(result: CorruptionResult) -> Table:
    """By corruption, the mean and each severity."""
    n = result.n
    rows = [
        (name, f"{100 * result.accuracy_of(name):.1f} %", *(accuracy(row.correct, n) for row in rows))
        for name, rows in _by_corruption(result).items()
    ]
    empty = ("",) * (len(result.severities) - 1)
    mean = percent(result.mean_accuracy, result.interval)
    return Table(
        f"accuracy by corruption and severity [95 % interval], n = {n:,}",
        ("corruption", "mean", *(f"severity {severity}" for severity in result.severities)),
        (
            ("none (clean)", accuracy(result.clean_correct, n), "", *empty),
            *rows,
            ("mean of all", mean, "", *empty),
        ),
    )


def _by_corruption(result: CorruptionResult) -> dict[str, list[CorruptionAccuracy]]:
    return {name: [row for row in result.rows if row.corruption == name] for name in result.corruptions}


def _relative(result: CorruptionResult) -> tuple[Table, ...]:
    """Errors relative to the baseline's."""
    if (found := result.relative) is None:
        return ()
    errors = {**found.errors, "mean corruption error": found.mean_corruption_error}
    rows = tuple((name, "-" if error is None else f"{100 * error:.1f} %") for name, error in errors.items())
    return (Table(f"errors relative to those of {found.name}", ("corruption", "error"), rows),)


def _unknown(result: CorruptionResult) -> tuple[str, ...]:
    errors = result.relative.errors if result.relative else {}
    names = [name for name, error in errors.items() if error is None]
    said = f"The baseline makes no error under {', '.join(names)}, which the mean leaves out."
    return (said,) if names else ()


def pictures(folder: Path, result: CorruptionResult, model: Model, data: Data) -> tuple[Picture, ...]:
    """Accuracy by severity, and an image under every corruption."""
    curve = Picture.chart(
        "accuracy by severity",
        severities(result),
        "The mean over all corruptions with its 95 % interval, and each corruption.",
        folder / "severities.svg",
    )
    ends = (result.severities[0], result.severities[-1])
    shown = next((v.id for v in result.verdicts if v.status != "misclassified"), result.verdicts[0].id)
    ids = torch.tensor([shown])
    x, label = data.batch((data.ids == shown).nonzero()[:, 0])
    changed = [
        [
            corrupted(x, ids, name, severity, family=result.constants, seed=result.seed)
            for name in result.corruptions
        ]
        for severity in dict.fromkeys(ends)
    ]
    with torch.no_grad(), evaluation_mode(model):
        said = [[int(model(image.to(device_of(model))).argmax()) for image in row] for row in changed]
    names = dict(enumerate(data.class_names))
    path = folder / "gallery.png"
    gallery = Picture(
        "gallery",
        path,
        f"An image of class {names[int(label)]} (id {shown}) under each corruption, in severities "
        f"{' and '.join(map(str, dict.fromkeys(ends)))}, and what the model calls it; red: wrong.",
    )
    write_gallery(
        path,
        result.corruptions,
        [torch.cat(row) for row in changed],
        [[(names.get(one, str(one)), one != int(label)) for one in row] for row in said],
    )
    return curve, gallery
