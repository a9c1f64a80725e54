"""Evaluate preprocessing under adaptive attacks."""

from __future__ import annotations

from advkit.core.context import Context
from advkit.data import threats
from advkit.data.subjects import open_subjects
from advkit.defences.defend import defend, unaveraged
from advkit.defences.examples import attacks_of
from advkit.defences.purifier import build
from advkit.defences.result import PurificationResult
from advkit.defences.settings import Purification as Config
from advkit.gan.evaluation.subject import open_subject
from advkit.report import defences as report
from advkit.report.outcome import Outcome, planned

GROUP = "Defences"
EXAMPLE = "advkit defence-eval --model clf.pt --defence jpeg --norm linf --eps 0.15"


def run(config: Config, context: Context) -> Outcome:
    """Evaluates a purifier."""
    (classifier,), (test,) = open_subjects(config, context, "test")
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
        return planned(
            f"{config.defence} in front of {config.model}, {len(chosen):,} test images of {chosen.name}, "
            f"{', '.join(config.attack)} by {' and '.join(purifier.ways)}.",
            f"An image costs {purifier.cost:,} passes of a generator, forward and backward, for each query "
            "of the classifier; an attack queries once a step, and the checks about as often again.",
            n=len(chosen),
            cost=purifier.cost,
            ways=list(purifier.ways),
        )
    generator = None if subject is None else subject.hash
    inputs = classifier.beginning("classifier") | {"generator": generator, "images": chosen.fingerprint}
    with context.run_folder("defence-eval", test.name, config, inputs) as run:

        def work() -> PurificationResult:
            result = defend(
                classifier,
                purifier,
                chosen,
                against,
                config,
                generator_hash=generator,
                folder=run.path,
                progress=context.progress,
            )
            report.draw_purified(run.path, chosen, purifier)
            return result

        return report.purification(config, run.once(PurificationResult, work), run.path)
