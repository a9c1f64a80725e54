"""Search latent space for adversarial examples."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from advkit.attacks.perturb import logits_of
from advkit.core import files
from advkit.core.context import Context
from advkit.core.errors import DataError
from advkit.core.runs import RunFolder, environment
from advkit.core.stats import accuracy, clopper_pearson
from advkit.data.data import Data
from advkit.data.subjects import flags, open_subjects
from advkit.gan.evaluation.subject import open_subject
from advkit.gan.judge import DIGITS, judge
from advkit.models.model import evaluation_mode
from advkit.report.figures.universal import write_pairs
from advkit.report.outcome import Outcome, Picture, Table
from advkit.trained_attacks.latent.invert import Inverted, invert
from advkit.trained_attacks.latent.natural import NaturalExamples, search_latent
from advkit.trained_attacks.latent.natural_result import NaturalResult, Searched
from advkit.trained_attacks.latent.natural_settings import Natural as Config
from advkit.trained_attacks.latent.natural_settings import NaturalSettings

GROUP = "Robustness"
EXAMPLE = "advkit natural --model clf.pt --generator digits-conv-gan-ema --n 100"

SHOWN = 10


def run(config: Config, context: Context) -> Outcome:
    """Searches latent space around correctly classified images; a finished run shows its result again.

    Raises:
        UserError: something is wrong with the models, the data or the options.
    """
    (model,), (whole,) = open_subjects(
        [config.model], config.data, (config.split,), arch=config.arch, said=config, context=context
    )
    if whole.class_names != DIGITS:
        raise DataError(
            f"the judge network reads digits, and {whole.name} has other classes; choose digits with --data"
        )
    chosen = whole.limit(config.n)
    subject = open_subject(config.generator, context.device)
    config = config.model_copy(update={"data": config.data or whole.name})
    with evaluation_mode(model):
        right = logits_of(model, chosen).argmax(1) == chosen.labels
    if not right.any():
        raise DataError(
            f"the classifier classifies none of the {len(chosen)} images correctly; choose another"
        )
    if context.dry_run:
        return _plan(config, int(right.sum()))
    inputs = {"model": model.hash, "generator": subject.hash, "images": chosen.fingerprint}
    with RunFolder.open(
        "natural", whole.name, config, context.out, inputs=inputs, resume=context.resume
    ) as run:

        def work() -> NaturalResult:
            begun = time.perf_counter()
            data = chosen.take(right.nonzero()[:, 0])
            x, labels = data.batch(torch.arange(len(data)))
            own = invert(
                subject.generator,
                x,
                labels,
                config,
                ids=data.ids,
                encoder=subject.whole,
                progress=context.progress,
            )
            found = search_latent(
                model, subject.generator, own.latent, labels, config, ids=data.ids, progress=context.progress
            )
            seen = judge()
            read, began, judged = (seen.digits(each) for each in (x, own.images, found.images))
            legitimate = found.found & (judged == labels)
            n, hits, good = len(data), int(found.found.sum()), int(legitimate.sum())
            result = NaturalResult(
                model=config.model,
                model_hash=model.hash,
                generator=config.generator,
                generator_hash=subject.hash,
                judge=seen.hash,
                judge_correct=int((read == labels).sum()),
                reconstructed=int((began == labels).sum()),
                data=chosen.facts,
                settings=config.model_dump(mode="json", include=set(NaturalSettings.model_fields)),
                n=len(chosen),
                clean_correct=n,
                found=hits,
                legitimate=good,
                raw_success=hits / n,
                legitimacy=good / max(hits, 1),
                success=good / n,
                interval=clopper_pearson(good, n),
                queries=float(found.queries.float().mean()),
                images=_rows(data, found, judged),
                seconds=time.perf_counter() - begun,
                environment=environment(),
            )
            _write(run.path, data, x, own, found, legitimate)
            return result

        result = run.once(NaturalResult, work, context.progress)
        return _outcome(config, result, run.path)


def _rows(data: Data, found: NaturalExamples, judged: Tensor) -> tuple[Searched, ...]:
    columns = (data.ids, data.labels, found.found, found.said, judged, found.distance, found.queries)
    names = ("id", "label", "found", "said", "judged", "distance", "queries")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return tuple(Searched(**dict(zip(names, row, strict=True))) for row in rows)


def _write(
    folder: Path, data: Data, x: Tensor, own: Inverted, found: NaturalExamples, legitimate: Tensor
) -> None:
    """What was found as numbers, and the first of it as a picture."""
    files.write_arrays(
        folder / "natural.npz",
        x=found.images.numpy(),
        original=x.numpy(),
        reconstruction=own.images.numpy(),
        latent=found.latent.numpy(),
        y=data.labels.numpy(),
        id=data.ids.numpy(),
        found=found.found.numpy(),
        legitimate=legitimate.numpy(),
    )
    order = (2 - found.found.int() - legitimate.int()).argsort(stable=True)[:SHOWN]
    names = data.class_names
    above, below = ([names[at] for at in each[order].tolist()] for each in (data.labels, found.said))
    rows = (x[order], own.images[order], found.images[order])
    write_pairs(folder / "examples.png", rows, above, below, legitimate[order].tolist())


def _plan(config: Config, n: int) -> Outcome:
    inverting = (config.steps + 1) * config.restarts * n
    searching = config.rings * config.samples * n
    return Outcome(
        title="what would be done",
        sentences=(
            f"{n} images are inverted ({inverting:,} images through {config.generator}, both ways), then "
            f"at most {searching:,} are generated around their latent vectors, for {config.model}.",
        ),
        result={"n": n, "inverting": inverting, "searching": searching},
    )


def _outcome(config: Config, result: NaturalResult, folder: Path) -> Outcome:
    n = result.clean_correct
    rows = [
        ("raw success: found", accuracy(result.found, n), f"{n:,}"),
        ("success: found, and still the digit", accuracy(result.legitimate, n), f"{n:,}"),
        ("the judge reads the images themselves", accuracy(result.judge_correct, n), f"{n:,}"),
        ("the judge reads their reconstructions", accuracy(result.reconstructed, n), f"{n:,}"),
    ]
    if result.found:
        share = accuracy(result.legitimate, result.found)
        rows.insert(1, ("legitimacy: of these, still the digit", share, f"{result.found:,}"))
    subject = flags([config.model], config.data or "", arch=config.arch, said=config)
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
                tuple(rows),
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
        result=result.as_values(),
    )
