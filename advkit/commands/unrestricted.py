"""Generate unrestricted adversarial examples."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import torch

from advkit.core import device as devices
from advkit.core import files, images
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, ModelError, did_you_mean
from advkit.core.levels import as_image
from advkit.core.runs import RunFolder, environment
from advkit.core.stats import accuracy, clopper_pearson
from advkit.data.subjects import flags
from advkit.gan.evaluation.subject import Subject, open_subject
from advkit.gan.judge import DIGITS, Judge, judge
from advkit.gan.labelled import common_classes
from advkit.gan.sample import sample
from advkit.models.inspect import inspect_classifier
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.report.figures.universal import write_pairs
from advkit.report.outcome import Outcome, Picture, Table
from advkit.trained_attacks.latent.auxiliary import auxiliary_classifier
from advkit.trained_attacks.latent.unrestricted import Constructed, construct
from advkit.trained_attacks.latent.unrestricted_result import Example, UnrestrictedResult
from advkit.trained_attacks.latent.unrestricted_settings import Unrestricted as Config
from advkit.trained_attacks.latent.unrestricted_settings import UnrestrictedSettings

GROUP = "Robustness"
EXAMPLE = "advkit unrestricted --model clf.pt --generator digits-conditional-ema"

SHOWN = 10
"""Examples of each class in the grid, and examples shown beside their start."""


def run(config: Config, context: Context) -> Outcome:
    """Searches a generator's images for misclassified ones; a finished run shows its result again.

    Raises:
        UserError: something is wrong with the models or the options.
    """
    device = str(devices.choose(context.device))
    subject = open_subject(config.generator, device)
    if subject.classes is None:
        raise ModelError(
            f"{config.generator} is unconditional; train a conditional generator with "
            "advkit gan-train --conditional projection"
        )
    if subject.card.labels != DIGITS:
        raise DataError(
            f"the judge network reads digits, and {config.generator} has other classes; "
            "choose a generator of digits"
        )
    said = config.said | {"shape": config.shape or subject.card.shape}
    model = load_model(
        config.model, role="classifier", arch=config.arch, classes=subject.classes, **said, device=device
    )
    common_classes(subject.generator, model)
    few, _ = sample(subject.generator, 8, config.seed)
    for note in inspect_classifier(model, as_image(few.to(device)), subject.classes).notes:
        context.progress.say(f"{config.model}: {note}")
    auxiliary_model = None if config.auxiliary is None else load_model(config.auxiliary, device=device)
    auxiliary = auxiliary_model and auxiliary_classifier(
        auxiliary_model, subject.generator, model, config.auxiliary or ""
    )
    target = None if config.target is None else _class(config.target, subject.card.labels)
    if context.dry_run:
        return _plan(config)
    inputs = {
        "model": model.hash,
        "generator": subject.hash,
        "auxiliary": auxiliary_model and auxiliary_model.hash,
    }
    with RunFolder.open(
        "unrestricted", "digits", config, context.out, inputs=inputs, resume=context.resume
    ) as run:

        def work() -> UnrestrictedResult:
            begun = time.perf_counter()
            made = construct(
                model,
                subject.generator,
                config.n,
                config,
                auxiliary=auxiliary,
                target=target,
                progress=context.progress,
            )
            result = _result(config, model, subject, auxiliary_model, made, target, begun)
            _write(run.path, result, made)
            return result

        result = run.once(UnrestrictedResult, work, context.progress)
        return _outcome(config, result, run.path)


def _class(target: int | str, names: tuple[str, ...]) -> int:
    if str(target) not in names:
        raise ConfigError(
            f"there is no class {target!r}{did_you_mean(str(target), names)}; name one of {', '.join(names)}"
        )
    return names.index(str(target))


def _result(
    config: Config,
    model: Model,
    subject: Subject,
    auxiliary_model: Model | None,
    made: Constructed,
    target: int | None,
    begun: float,
) -> UnrestrictedResult:
    seen: Judge = judge()
    began, judged = seen.digits(made.start), seen.digits(made.images)
    n, found = len(made.labels), int(made.found.sum())
    good = int((made.found & (judged == made.labels)).sum())
    ids = torch.arange(n)
    columns = (ids, made.labels, made.start_said, began, made.found, made.said, judged, made.passes)
    names = ("id", "label", "start_said", "start_judged", "found", "said", "judged", "passes")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return UnrestrictedResult(
        model=config.model,
        model_hash=model.hash,
        generator=config.generator,
        generator_hash=subject.hash,
        auxiliary=config.auxiliary,
        auxiliary_hash=auxiliary_model.hash if auxiliary_model else None,
        judge=seen.hash,
        search=config.search,
        target=target,
        target_name="" if target is None else subject.card.labels[target],
        settings=config.model_dump(mode="json", include=set(UnrestrictedSettings.model_fields)),
        n=n,
        start_wrong=int((made.start_said != made.labels).sum()),
        start_read=int((began == made.labels).sum()),
        found=found,
        legitimate=good,
        raw_success=found / n,
        raw_interval=clopper_pearson(found, n),
        legitimacy=good / max(found, 1),
        legitimacy_interval=clopper_pearson(good, found),
        success=good / n,
        interval=clopper_pearson(good, n),
        passes=float(made.passes.float().mean()),
        examples=tuple(Example(**dict(zip(names, row, strict=True))) for row in rows),
        seconds=time.perf_counter() - begun,
        environment=environment(),
    )


def _write(folder: Path, result: UnrestrictedResult, made: Constructed) -> None:
    """The arrays, and some examples as pictures."""
    judged = torch.tensor([example.judged for example in result.examples])
    legitimate = made.found & (judged == made.labels)
    files.write_arrays(
        folder / "unrestricted.npz",
        x=made.images.numpy(),
        start=made.start.numpy(),
        latent=made.latent.numpy(),
        y=made.labels.numpy(),
        said=made.said.numpy(),
        found=made.found.numpy(),
        legitimate=legitimate.numpy(),
    )
    blank = torch.ones_like(made.images[:1])
    rows = []
    for label in made.labels.unique():
        row = made.images[legitimate & (made.labels == label)][:SHOWN]
        rows.append(torch.cat([row, blank.expand(SHOWN - len(row), -1, -1, -1)]))
    images.write_grid(folder / "grid.png", torch.cat(rows), SHOWN)
    order = (2 - made.found.int() - legitimate.int()).argsort(stable=True)[:SHOWN]
    above, below = ([DIGITS[at] for at in each[order].tolist()] for each in (made.labels, made.said))
    shown = (made.start[order], made.images[order])
    write_pairs(folder / "examples.png", shown, above, below, legitimate[order].tolist())


def _plan(config: Config) -> Outcome:
    passes = config.passes * config.n
    return Outcome(
        title="what would be done",
        sentences=(
            f"{config.n:,} examples by {config.search}, at most {config.passes} passes each through "
            f"{config.model}: {passes:,}.",
        ),
        result={"n": config.n, "passes": passes},
    )


def _outcome(config: Config, result: UnrestrictedResult, folder: Path) -> Outcome:
    n = result.n
    rows = [
        ("raw success: found", accuracy(result.found, n), f"{n:,}"),
        ("success: found, and still of its class", accuracy(result.legitimate, n), f"{n:,}"),
        ("first samples misclassified by the classifier", accuracy(result.start_wrong, n), f"{n:,}"),
        ("first samples read correctly by the judge", accuracy(result.start_read, n), f"{n:,}"),
    ]
    if result.found:
        share = accuracy(result.legitimate, result.found)
        rows.insert(1, ("legitimacy: of these, still of their class", share, f"{result.found:,}"))
    subject = flags([config.model], "", arch=config.arch, said=config)
    generator = f"--generator {shlex.quote(config.generator)}"
    other = "monte-carlo" if config.search == "gradient" else "gradient"
    return Outcome(
        title=f"unrestricted adversarial examples against {config.model}",
        sentences=(
            result.sentence,
            f"{result.passes:,.0f} forward and backward passes of the classifier an example on average.",
        ),
        tables=(Table(f"images of {config.generator}", ("", "share [95 %]", "n"), tuple(rows)),),
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
            f"advkit unrestricted {subject} {generator} --search {other}",
            f"advkit gan-eval --model {shlex.quote(config.generator)}",
        ),
        result=result.as_values(),
    )
