"""The outcomes of the attacks that first train or search something, from their results."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from advkit.attacks.perturb import device_of
from advkit.core import images, rng
from advkit.core.stats import accuracy
from advkit.core.threat import Threat, options
from advkit.data.data import Data
from advkit.data.subjects import flags
from advkit.gan.judge import DIGITS
from advkit.models.model import Model, evaluation_mode
from advkit.report.figures.curves import ADVGAN, CLASSIFIER, course
from advkit.report.figures.universal import write_maps, write_perturbation, write_print
from advkit.report.outcome import Outcome, Picture, Table, planned
from advkit.report.plots import write_images
from advkit.trained_attacks.generators.judge import attackable, generate, hits
from advkit.trained_attacks.generators.result import AdvGanResult
from advkit.trained_attacks.generators.settings import AdvGanTraining
from advkit.trained_attacks.latent.invert import Inverted
from advkit.trained_attacks.latent.natural import NaturalExamples
from advkit.trained_attacks.latent.result import (
    InversionResult,
    JudgedResult,
    NaturalResult,
    UnrestrictedResult,
)
from advkit.trained_attacks.latent.settings import GanInversion, Natural, Unrestricted
from advkit.trained_attacks.latent.unrestricted import Constructed
from advkit.trained_attacks.transfer.result import SubstituteResult
from advkit.trained_attacks.transfer.settings import SubstituteTraining
from advkit.trained_attacks.universal.change import Patch, Perturbation, paste
from advkit.trained_attacks.universal.judge import PatchJudge, predicted_classes
from advkit.trained_attacks.universal.make import Trial
from advkit.trained_attacks.universal.result import Hits, PatchJudged, PatchResult, PerturbationResult
from advkit.trained_attacks.universal.settings import PatchTraining, PerturbationTraining

SHOWN = 8
"""Test images in a picture of a universal attack."""
FOUND = 10
"""Examples of each class in a grid, and examples shown beside their start."""
INVERTED, ACROSS = 60, 20
"""Images in the picture of an inversion at most, and across it."""


def universal_plan(
    sentence: str,
    config: PatchTraining | PerturbationTraining,
    trial: Trial,
    judged: int,
    **values: object,
) -> Outcome:
    """What training a universal change costs; the evaluation of a classifier takes ``judged`` forward passes
    at most."""
    training = config.steps * min(config.batch_size, len(trial.learn)) * len(trial.models)
    judging = judged * len(trial.names)
    rows = (("training", f"{training:,}", f"{training:,}"), ("evaluation, at most", f"{judging:,}", "0"))
    cost = Table("cost", ("", "images forward", "images backward"), rows)
    return planned(sentence, table=cost, forwards=training + judging, backwards=training, **values)


def draw_patch(folder: Path, config: PatchTraining, model: Model, test: Data, result: PatchResult) -> None:
    """The patch to print, maps of where it works, and random images, whether or not it succeeded."""
    assert result.patch is not None
    write_print(folder / "patch.png", result.patch, config.form, config.print_pixels)
    write_maps(folder / "places.png", result)
    kind = Patch(config, test.shape)
    with torch.no_grad(), evaluation_mode(model):
        judge = PatchJudge(model, test, kind, result.target, config.seed)
        order = rng.permutation(config.seed, "examples", len(judge.data))[:SHOWN]
        few = judge.data.take(order)
        x, _ = few.batch(torch.arange(len(few)), device_of(model))
        place = judge.drawn(config.scale, f"judge {config.scale}").take(order.to(x.device))
        patched = paste(result.patch[None].to(x.device), x, place, config.form)
        answers = predicted_classes(model, patched)
    _pairs(folder, (x.cpu(), patched.cpu()), few, answers, answers == result.target)


def patch(config: PatchTraining, result: PatchResult, folder: Path, wanted: tuple[Path, ...]) -> Outcome:
    """The outcome of ``advkit patch``."""
    side = min(result.shape[1:])
    tables = tuple(
        Table(
            f"{judged.label}: classified as {result.target_name}, n = {judged.judged:,}",
            ("diameter", "patch [95 % interval]", "noise", "grey", f"real {result.target_name}"),
            tuple(_by_patch(hits, judged, side) for hits in (*judged.by_scale, judged.anywhere)),
        )
        for judged in result.classifiers
    )
    subject = f"{flags(config, result.train.name)} --target={shlex.quote(str(config.target))}"
    larger = min(1.0, 1.5 * config.scale[1])
    return Outcome(
        title=f"a patch with target class {result.target_name}",
        sentences=(
            result.sentence,
            "For comparison, at the same places: a patch of noise, a grey one, a training image of the "
            "class.",
        ),
        tables=tables,
        pictures=(
            Picture("the patch, to print", folder / "patch.png", "Transparent outside its outline."),
            Picture(
                "where it works",
                folder / "places.png",
                "Share of the images classified as the target, by the position of the patch.",
            ),
            Picture("examples", folder / "examples.png", "Random test images, without and with the patch."),
        ),
        files=(*(wanted or (folder / "patch.npz",)), folder),
        next=(
            f"advkit patch {subject} --steps {3 * config.steps}",
            f"advkit patch {subject} --scale {config.scale[1]:g},{larger:g}",
        ),
        stored=result,
    )


def _by_patch(hits: Hits, judged: PatchJudged, side: int) -> tuple[str, ...]:
    low, high = hits.scale
    scale = f"{low:.2f} ({low * side:.0f} px)" if low == high else f"{low:.2f} to {high:.2f}"
    n = judged.judged
    others = (f"{100 * count / n:.1f} %" for count in (hits.noise, hits.grey, hits.real))
    return (scale, accuracy(hits.patch, n), *others)


def draw_perturbation(
    folder: Path,
    config: PerturbationTraining,
    model: Model,
    test: Data,
    against: Threat,
    result: PerturbationResult,
) -> None:
    """The perturbation, and random images with it, whether or not it succeeded."""
    change, target = result.perturbation, result.target
    assert change is not None
    write_perturbation(folder / "universal.png", change)
    few = test.take(rng.permutation(config.seed, "examples", len(test))[:SHOWN])
    x, labels = few.batch(torch.arange(len(few)), device_of(model))
    with evaluation_mode(model):
        moved = Perturbation(against, test.shape, config.rate).apply(change[None].to(x.device), x, labels)
        before, after = predicted_classes(model, x), predicted_classes(model, moved)
    _pairs(folder, (x.cpu(), moved.cpu()), few, after, after != before if target is None else after == target)


def perturbation(
    config: PerturbationTraining, result: PerturbationResult, folder: Path, wanted: tuple[Path, ...]
) -> Outcome:
    """The outcome of ``advkit universal``."""
    first, threat = result.classifiers[0], result.threat
    sentences = [result.sentence]
    if first.becomes and result.target is None:
        most, count = next(iter(first.becomes.items()))
        share = f"{100 * count / first.fooled:.0f} %"
        sentences.append(f"Of the images that are misclassified, {share} become {most}.")
    aim = "fooled" if result.target is None else f"classified as {result.target_name}"
    rows = tuple(
        (
            judged.label,
            accuracy(judged.hits, judged.judged) if judged.judged else "-",
            f"{100 * judged.fooled_by_random / judged.n:.1f} %",
            f"{100 * judged.clean_correct / judged.n:.1f} → {100 * judged.correct / judged.n:.1f} %",
        )
        for judged in result.classifiers
    )
    grey = f"Grey is 0, black -{threat.eps:.3g}, white {threat.eps:.3g}."
    every = flags(config, result.train.name)
    one = flags(config.model_copy(update={"model": config.model[:1]}), result.train.name)
    larger = min(1.0, 2 * threat.eps) if threat.norm == "linf" else 2 * threat.eps
    return Outcome(
        title=f"universal perturbation, {threat.norm} eps {threat.eps:.4g}",
        sentences=tuple(sentences),
        tables=(
            Table(
                f"{first.n:,} test images of {result.test.name}",
                ("classifier", f"{aim} [95 % interval]", "random noise", "accuracy"),
                rows,
            ),
        ),
        pictures=(
            Picture(
                "the perturbation", folder / "universal.png", grey if threat.norm == "linf" else "Enlarged."
            ),
            Picture(
                "examples", folder / "examples.png", "Random test images, without and with the perturbation."
            ),
        ),
        files=(*(wanted or (folder / "universal.npz",)), folder),
        next=(
            f"advkit universal {every} --norm {threat.norm} --eps {larger:.3g}",
            f"advkit attack {one} {options(threat.norm, threat.eps)}",
        ),
        stored=result,
    )


def draw_advgan(
    folder: Path,
    config: AdvGanTraining,
    generator: Model,
    model: Model,
    test: Data,
    against: Threat,
    target: int | None,
) -> None:
    """Random test images that are classified correctly, whether or not the attack succeeded."""
    with evaluation_mode(model):
        judged = attackable(model, test, target)
        few = judged.take(rng.permutation(config.seed, "examples", len(judged))[:SHOWN])
        x, _ = generate(generator, few, against, device_of(model))
        met, said = hits(model, x, few, against, target)
    x0, _ = few.batch(torch.arange(len(few)))
    changed = 0.5 + (x - x0) / (2 * (x - x0).abs().max().clamp(min=1e-12))
    _pairs(folder, (x0, changed, x), few, said, met)


def advgan(config: AdvGanTraining, result: AdvGanResult, folder: Path) -> Outcome:
    """The outcome of ``advkit advgan-train``."""
    threat, judged, name = result.threat, result.judged, result.model.name
    sentences = [result.sentence]
    if result.becomes and result.target is None:
        most, count = next(iter(result.becomes.items()))
        sentences.append(f"Of these, {100 * count / result.hits:.0f} % become {most}.")
    sentences.append(f"In the model store as {name}; it perturbs {result.made_per_second:,.0f} images/s.")
    if (box := result.black_box) is not None:
        sentences.append(
            f"The classifier was queried {box.queries:,} of {box.limit:,} times ({_origins(box.asked)}) and "
            f"returned {box.answers}; the substitute agrees on {accuracy(box.agreed, result.n)} of the test "
            "images."
        )
    aim = "misclassified" if result.target is None else f"classified as {result.target_name}"
    rows = (
        ("generator", accuracy(result.hits, judged), f"{judged:,}"),
        ("random noise of the same size", accuracy(result.hits_by_noise, judged), f"{judged:,}"),
    )
    budget = options(threat.norm, threat.eps)
    attack = f"advkit attack {flags(config, result.train.name)} {budget} --attack"
    return Outcome(
        title=f"perturbation generator, {threat.norm} eps {threat.eps:.4g}",
        sentences=tuple(sentences),
        tables=(
            Table(
                f"test images of {result.test.name} that are classified correctly",
                ("", f"{aim} [95 % interval]", "n"),
                rows,
            ),
        ),
        pictures=(
            Picture(
                "examples",
                folder / "examples.png",
                "Random test images, the perturbation (grey is 0), and the perturbed images.",
            ),
            *course(
                folder,
                {key: ADVGAN[key] for key in ADVGAN if config.gan_weight > 0 or key != "d_accuracy"},
                "Success during training.",
            ),
        ),
        files=(*map(Path, result.model.files), folder),
        next=(
            f"{attack} {shlex.quote(f'advgan:{name}')}",
            f"{attack} {shlex.quote(f'pgd,advgan:{name}')}",
            f"advkit models lineage {name}",
        ),
        stored=result,
    )


def substitute(config: SubstituteTraining, result: SubstituteResult, folder: Path) -> Outcome:
    """The outcome of ``advkit substitute``."""
    n = result.n
    rows = (
        ("original", accuracy(result.original_correct, n), ""),
        ("substitute", accuracy(result.copy_correct, n), accuracy(result.agreed, n)),
    )
    transfer = f"advkit attack {flags(config, config.data)} --surrogate {shlex.quote(result.model.files[0])}"
    return Outcome(
        title=f"a substitute of {config.model}",
        sentences=(
            result.sentence,
            f"{result.queries:,} of {result.limit:,} queries were made ({_origins(result.asked)}).",
            f"In the model store as {result.model.name}.",
        ),
        tables=(
            Table(
                f"{n:,} test images of {result.test.name}",
                ("", "accuracy [95 % interval]", "agreement with the original"),
                rows,
            ),
        ),
        pictures=tuple(
            course(folder, CLASSIFIER, "Agreement with the original on the queries during training.")
        ),
        files=(*map(Path, result.model.files), folder),
        next=(
            f"{transfer} --attack pgd",
            f"{transfer} --attack pgd,square",
            f"advkit models lineage {result.model.name}",
        ),
        stored=result,
    )


def draw_natural(
    folder: Path, data: Data, x: Tensor, own: Inverted, found: NaturalExamples, legitimate: Tensor
) -> None:
    """Images, their reconstructions, and what was found: the legitimate examples first."""
    order = (2 - found.found.int() - legitimate.int()).argsort(stable=True)[:FOUND]
    rows = (x[order], own.images[order], found.images[order])
    _pairs(folder, rows, data.take(order), found.said[order], legitimate[order])


def natural(config: Natural, result: NaturalResult, folder: Path) -> Outcome:
    """The outcome of ``advkit natural``."""
    n, subject = result.clean_correct, flags(config, config.data)
    others = (
        ("the judge reads the images themselves", accuracy(result.judge_correct, n), f"{n:,}"),
        ("the judge reads their reconstructions", accuracy(result.reconstructed, n), f"{n:,}"),
    )
    return Outcome(
        title=f"natural adversarial examples against {config.model}",
        sentences=(
            result.sentence,
            f"{result.queries:,.0f} queries of the classifier for each image on average.",
        ),
        tables=(
            Table(
                f"images of {result.data.name} that are classified correctly",
                ("", "share [95 %]", "n"),
                (*_successes(result, n, "the digit"), *others),
            ),
        ),
        pictures=(
            Picture(
                "examples",
                folder / "examples.png",
                "Images, their reconstructions, and what was found; red where the judge sees the digit.",
            ),
        ),
        files=(folder / "natural.npz", folder),
        next=(
            f"advkit natural {subject} --generator {config.generator} --radius {config.radius / 2:.3g}",
            f"advkit attack {subject}",
        ),
        stored=result,
    )


def draw_unrestricted(folder: Path, made: Constructed, legitimate: Tensor) -> None:
    """A row of legitimate examples for each class, and some examples beside their start."""
    blank = torch.ones_like(made.images[:1])
    rows = []
    for label in made.labels.unique():
        row = made.images[legitimate & (made.labels == label)][:FOUND]
        rows.append(torch.cat([row, blank.expand(FOUND - len(row), -1, -1, -1)]))
    images.write_grid(folder / "grid.png", torch.cat(rows), FOUND)
    order = (2 - made.found.int() - legitimate.int()).argsort(stable=True)[:FOUND]
    above, below = ([DIGITS[at] for at in each[order].tolist()] for each in (made.labels, made.said))
    shown = (made.start[order], made.images[order])
    write_images(folder / "examples.png", shown, above, below, red=legitimate[order].tolist())


def unrestricted(config: Unrestricted, result: UnrestrictedResult, folder: Path) -> Outcome:
    """The outcome of ``advkit unrestricted``."""
    n, generator = result.n, shlex.quote(config.generator)
    others = (
        ("first samples misclassified by the classifier", accuracy(result.start_wrong, n), f"{n:,}"),
        ("first samples read correctly by the judge", accuracy(result.start_read, n), f"{n:,}"),
    )
    other = "monte-carlo" if config.search == "gradient" else "gradient"
    return Outcome(
        title=f"unrestricted adversarial examples against {config.model}",
        sentences=(
            result.sentence,
            f"{result.passes:,.0f} forward and backward passes of the classifier an example on average.",
        ),
        tables=(
            Table(
                f"images of {config.generator}",
                ("", "share [95 %]", "n"),
                (*_successes(result, n, "of its class"), *others),
            ),
        ),
        pictures=(
            Picture(
                "grid",
                folder / "grid.png",
                "Adversarial examples that the judge reads as their class: a row for each class.",
            ),
            Picture(
                "examples",
                folder / "examples.png",
                "First samples, and the examples found from them; red where the judge reads their class.",
            ),
        ),
        files=(folder / "unrestricted.npz", folder),
        next=(
            f"advkit unrestricted {flags(config, None)} --generator {generator} --search {other}",
            f"advkit gan-eval --model {generator}",
        ),
        stored=result,
    )


def draw_inversion(folder: Path, x: Tensor, found: Inverted, train: Data, nearest: Tensor) -> None:
    """Bands of images, of their reconstructions, and of the nearest training images."""
    shown = min(len(x), INVERTED)
    beside, _ = train.batch(nearest[:shown])
    columns = min(ACROSS, shown)
    bands = []
    for part in torch.arange(shown).split(columns):
        for each in (x, found.images, beside):
            blank = torch.ones(columns - len(part), *x.shape[1:])
            bands.append(torch.cat([each[part], blank]))
    images.write_grid(folder / "reconstructions.png", torch.cat(bands), columns)


def inversion(config: GanInversion, result: InversionResult, folder: Path) -> Outcome:
    """The outcome of ``advkit gan-invert``."""
    rows = (
        ("inverted", f"{result.error:.4f}"),
        ("nearest training image", f"{result.nearest_error:.4f}"),
        (f"best of {config.restarts} starts", f"{result.start_error:.4f}"),
    )
    model, data = shlex.quote(config.model), shlex.quote(config.data or "")
    return Outcome(
        title=f"latent vectors of {result.n} images",
        sentences=(
            result.sentence,
            f"The reconstruction is nearer than any training image on {result.nearer} of {result.n}.",
        ),
        tables=(Table("mean squared error, pixels in [0, 1]", ("", "mean"), rows),),
        pictures=(
            Picture(
                "reconstructions",
                folder / "reconstructions.png",
                "Images, below each its reconstruction, and below that the nearest training image.",
            ),
        ),
        files=(folder / "latents.npz", folder),
        next=(
            f"advkit gan-invert --model {model} --data {data} --steps {3 * config.steps}",
            f"advkit gan-sample --model {model} --n 400 --out samples.png",
        ),
        stored=result,
    )


def _successes(result: JudgedResult, n: int, kept: str) -> list[tuple[str, str, str]]:
    """Rows of a table: what was found, and how much of it the judge reads as it should."""
    rows = [
        ("raw success: found", accuracy(result.found, n), f"{n:,}"),
        (f"success: found, and still {kept}", accuracy(result.legitimate, n), f"{n:,}"),
    ]
    if result.found:
        share = accuracy(result.legitimate, result.found)
        rows.insert(1, (f"legitimacy: of these, still {kept}", share, f"{result.found:,}"))
    return rows


def _origins(asked: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {origin}" for origin, count in asked.items())


def _pairs(folder: Path, rows: Sequence[Tensor], few: Data, said: Tensor, met: Tensor) -> None:
    """Images and their changed forms, with the names of the classes, in red where the attack succeeded."""
    above, below = ([few.class_names[label] for label in each.tolist()] for each in (few.labels, said))
    write_images(folder / "examples.png", rows, above, below, red=met.tolist())
