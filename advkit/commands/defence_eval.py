"""Evaluate preprocessing under adaptive attacks."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from advkit.core import images, rng
from advkit.core.context import Context
from advkit.core.runs import RunFolder
from advkit.core.stats import accuracy
from advkit.data import threats
from advkit.data.data import Data
from advkit.data.subjects import flags, open_subjects
from advkit.defences.defend import defend, unaveraged
from advkit.defences.non_adaptive import attacks_of
from advkit.defences.purifier import Purifier, build
from advkit.defences.result import PurificationResult
from advkit.defences.settings import Purification as Config
from advkit.gan.evaluation.subject import open_subject
from advkit.report.outcome import Outcome, Picture, Table

GROUP = "Defences"
EXAMPLE = "advkit defence-eval --model clf.pt --defence jpeg --norm linf --eps 0.15"

COLUMNS = 20
"""Images across the picture."""
GRID = "purified.png"


def run(config: Config, context: Context) -> Outcome:
    """Evaluates a purifier; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the models, the data or the options.
    """
    (classifier,), (test,) = open_subjects(
        [config.model], config.data, ("test",), arch=config.arch, said=config, context=context
    )
    against = threats.choose(config.norm, config.eps, classifier, test, context.progress)
    subject = None if config.generator is None else open_subject(config.generator, context.device)
    classes = classifier.card.classes or test.classes
    purifier = build(config.defence, config.purifier, subject, shape=test.shape, classes=classes)
    chosen = test.limit(config.n)
    config = config.on(test.name, against)
    stages = attacks_of(config, classifier, test, against)
    for name in unaveraged(purifier, stages, against):
        context.progress.say(
            f"{config.defence} is random and {name} samples it once in a step; "
            f"--set parameters.{name}.samples=10 averages (EOT)"
        )
    if purifier.cost > 1:
        context.progress.say(
            f"an image costs {purifier.cost:,} passes of the generator, forward and backward, in every step"
        )
    if context.dry_run:
        return _plan(config, purifier, chosen)
    inputs = {
        "classifier": classifier.hash,
        "generator": None if subject is None else subject.hash,
        "images": chosen.fingerprint,
    }
    with RunFolder.open(
        "defence-eval", test.name, config, context.out, inputs=inputs, resume=context.resume
    ) as run:

        def work() -> PurificationResult:
            result = defend(
                classifier,
                purifier,
                chosen,
                against,
                config,
                generator_hash=None if subject is None else subject.hash,
                folder=run.path,
                progress=context.progress,
            )
            _draw(run.path / GRID, chosen, purifier)
            return result

        result = run.once(PurificationResult, work, context.progress)
        return _outcome(config, result, run.path)


@torch.no_grad()
def _draw(path: Path, data: Data, purifier: Purifier) -> None:
    """Images, and below each its purified version."""
    few = torch.arange(min(COLUMNS, len(data)))
    device = next(iter([*purifier.parameters(), *purifier.buffers()]), torch.empty(0)).device
    x, _ = data.batch(few, device)
    with rng.scope(device, 0, "model"):
        images.write_grid(path, torch.cat([x, purifier.eval()(x)]).cpu(), len(few))


def _plan(config: Config, purifier: Purifier, data: Data) -> Outcome:
    return Outcome(
        title="what would be done",
        sentences=(
            f"{config.defence} in front of {config.model}, {len(data):,} test images of {data.name}, "
            f"{', '.join(config.attack)} by {' and '.join(purifier.ways)}.",
            f"An image costs {purifier.cost:,} passes of a generator, forward and backward, for each query "
            "of the classifier; an attack queries once a step, and the checks about as often again.",
        ),
        result={"n": len(data), "cost": purifier.cost, "ways": list(purifier.ways)},
    )


def _outcome(config: Config, result: PurificationResult, folder: Path) -> Outcome:
    n, threat = result.n, f"{result.threat.norm} eps {result.threat.eps:.4g}"
    rows = (
        (
            config.defence,
            accuracy(result.adaptive, n),
            accuracy(result.unaware, n),
            accuracy(result.purified_correct, n),
        ),
        ("no defence", "", accuracy(result.bare, n), accuracy(result.clean_correct, n)),
    )
    ways = tuple(
        (one.way, stage.name, f"{stage.attacked:,}", f"{stage.broken:,}")
        for one in result.ways
        for stage in one.stages
    )
    unaware = tuple(
        (one.name, f"{one.fooled:,}", accuracy(one.recovered, one.fooled) if one.fooled else "")
        for one in result.attacks
    )
    subject = flags([config.model], config.data or "", arch=config.arch, said=config)
    generator = f" --generator {shlex.quote(config.generator)}" if config.generator else ""
    budget = f"--norm {config.norm} --eps {config.eps:.4g}"
    more = f"advkit defence-eval {subject} --defence {config.defence}{generator} {budget}"
    doubts = tuple((doubt,) for doubt in result.doubts)
    return Outcome(
        title=f"{config.defence} in front of {config.model}",
        sentences=(
            result.sentence,
            "Only the accuracy under the adaptive attack measures the defence; it is an upper bound, and a "
            "stronger attack could lower it.",
        ),
        tables=(
            Table(
                f"classified correctly, {threat}, n = {n:,} [95 % interval]",
                ("", "adaptive attack", "non-adaptive attack", "clean"),
                rows,
            ),
            Table("adaptive attacks", ("way", "attack", "attacked", "misclassified"), ways),
            Table("non-adaptive attacks", ("attack", "examples", "correct after purification"), unaware),
            *([Table("reasons for doubt", ("what to do about it",), doubts)] if doubts else []),
        ),
        pictures=(Picture("purified", folder / GRID, "Test images, and below each its purified version."),),
        files=(folder,),
        next=(
            f"{more} --attack pgd,square --set parameters.pgd.restarts=5",
            f"advkit attack {subject} {budget}",
        ),
        result=result.as_values(),
        warning=result.doubts[0] if result.unaveraged else "",
    )
