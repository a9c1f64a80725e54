"""Train an adversarial patch."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from advkit.attacks.perturb import device_of
from advkit.core import files, images, rng
from advkit.core.context import Context
from advkit.core.runs import RunFolder
from advkit.core.stats import accuracy
from advkit.data.data import Data
from advkit.data.subjects import flags, open_subjects
from advkit.models.model import Model
from advkit.report.figures.universal import write_maps, write_pairs, write_print
from advkit.report.outcome import Outcome, Picture, Table
from advkit.trained_attacks.universal.change import Patch, paste
from advkit.trained_attacks.universal.export import export, requested_files, run_identity
from advkit.trained_attacks.universal.judge import PatchJudge, passes, predicted_classes, random_subset
from advkit.trained_attacks.universal.make import all_in_evaluation_mode, class_number, make_patch
from advkit.trained_attacks.universal.result import Hits, PatchJudged, PatchResult
from advkit.trained_attacks.universal.settings import PatchTraining as Config

GROUP = "Attacks"
EXAMPLE = "advkit patch --model clf.pt --target 3 --out patch.png"

SHOWN = 8


def run(config: Config, context: Context) -> Outcome:
    """Trains a patch and evaluates it; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the models, the data or the options.
    """
    wanted = requested_files(context)
    names = (*config.model, *config.transfer)
    models, (learn, whole) = open_subjects(
        names, config.data, ("train", "test"), arch=config.arch, said=config, context=context
    )
    class_number(config.target, learn)  # complains now of a class that is not there
    trained_on, test = models[: len(config.model)], random_subset(whole, config.n, config.seed)
    if context.dry_run:
        return _plan(config, models, learn, test)
    folder = None if wanted else context.out
    inputs = run_identity(models, len(trained_on), learn, test)
    with RunFolder.open("patch", learn.name, config, folder, inputs=inputs, resume=context.resume) as run:

        def work() -> PatchResult:
            result = make_patch(
                trained_on,
                models[len(trained_on) :],
                names,
                learn,
                test,
                config,
                run=run,
                progress=context.progress,
            )
            assert result.patch is not None
            files.write_arrays(
                run.path / "patch.npz",
                patch=images.to_uint8(result.patch).numpy(),
                form=config.form,
                scale=config.scale,
                rotation=config.rotation,
                target=result.target,
            )
            write_print(run.path / "patch.png", result.patch, config.form, config.print_pixels)
            write_maps(run.path / "places.png", result)
            _examples(run.path / "examples.png", config, trained_on[0], test, result)
            return result

        result = run.once(PatchResult, work, context.progress)
        export(run.path, "patch", wanted)
        return _outcome(config, result, run.path, wanted)


def _examples(path: Path, config: Config, model: Model, test: Data, result: PatchResult) -> None:
    """The first test images, whether or not the patch succeeded."""
    assert result.patch is not None
    kind = Patch(config, test.shape)
    with torch.no_grad(), all_in_evaluation_mode([model]):
        judge = PatchJudge(model, test, kind, result.target, config.seed)
        order = rng.permutation(config.seed, "examples", len(judge.data))[:SHOWN]
        few = judge.data.take(order)
        x, labels = few.batch(torch.arange(len(few)), device_of(model))
        place = judge.drawn(config.scale, f"judge {config.scale}").take(order.to(x.device))
        patched = paste(result.patch[None].to(x.device), x, place, config.form)
        answers = predicted_classes(model, patched).tolist()
    write_pairs(
        path,
        (x.cpu(), patched.cpu()),
        [few.class_names[label] for label in labels.tolist()],
        [few.class_names[answer] for answer in answers],
        [answer == result.target for answer in answers],
    )


def _plan(config: Config, models: list[Model], learn: Data, test: Data) -> Outcome:
    kind = Patch(config, learn.shape)
    training = config.steps * min(config.batch_size, len(learn)) * len(config.model)
    judging = len(models) * passes(kind, len(test))
    return Outcome(
        title="what would be done",
        sentences=(
            f"A patch of {kind.pixels}x{kind.pixels} pixels, trained against {', '.join(config.model)} "
            f"on {len(learn):,} images of {learn.name}, evaluated on at most {len(test):,} test images.",
        ),
        tables=(
            Table(
                "cost",
                ("", "images forward", "images backward"),
                (
                    ("training", f"{training:,}", f"{training:,}"),
                    ("evaluation, at most", f"{judging:,}", "0"),
                ),
            ),
        ),
        result={"pixels": kind.pixels, "forwards": training + judging, "backwards": training},
    )


def _outcome(config: Config, result: PatchResult, folder: Path, wanted: tuple[Path, ...]) -> Outcome:
    side = min(result.shape[1:])
    sentences = (
        result.sentence,
        "For comparison, at the same places: a patch of noise, a grey one, a training image of the class.",
    )
    tables = [
        Table(
            f"{judged.label}: classified as {result.target_name}, n = {judged.judged:,}",
            ("diameter", "patch [95 % interval]", "noise", "grey", f"real {result.target_name}"),
            (
                *(_row(hits, judged, side) for hits in judged.by_scale),
                _row(judged.anywhere, judged, side),
            ),
        )
        for judged in result.classifiers
    ]
    pictures = (
        Picture("the patch, to print", folder / "patch.png", "Transparent outside its outline."),
        Picture(
            "where it works",
            folder / "places.png",
            "Share of the images classified as the target, by the position of the patch.",
        ),
        Picture("examples", folder / "examples.png", "Random test images, without and with the patch."),
    )
    subject = flags(config.model, result.train.name, arch=config.arch, said=config)
    subject += f" --target={shlex.quote(str(config.target))}"
    larger = min(1.0, 1.5 * config.scale[1])
    return Outcome(
        title=f"a patch with target class {result.target_name}",
        sentences=sentences,
        tables=tuple(tables),
        pictures=pictures,
        files=(*wanted, *(() if wanted else (folder / "patch.npz",)), folder),
        next=(
            f"advkit patch {subject} --steps {3 * config.steps}",
            f"advkit patch {subject} --scale {config.scale[1]:g},{larger:g}",
        ),
        result=result.as_values(),
    )


def _row(hits: Hits, judged: PatchJudged, side: int) -> tuple[str, ...]:
    low, high = hits.scale
    scale = f"{low:.2f} ({low * side:.0f} px)" if low == high else f"{low:.2f} to {high:.2f}"
    n = judged.judged
    others = (f"{100 * count / n:.1f} %" for count in (hits.noise, hits.grey, hits.real))
    return (scale, accuracy(hits.patch, n), *others)
