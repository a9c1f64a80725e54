"""Train a universal adversarial perturbation."""

from __future__ import annotations

from advkit.core import files
from advkit.core.context import Context
from advkit.data import threats
from advkit.data.subjects import open_subjects
from advkit.report import trained_attacks as report
from advkit.report.outcome import Outcome, Table, planned
from advkit.trained_attacks.universal.export import export, requested_files, run_identity
from advkit.trained_attacks.universal.judge import random_subset
from advkit.trained_attacks.universal.make import class_number, make_perturbation, refuse_norm
from advkit.trained_attacks.universal.result import PerturbationResult
from advkit.trained_attacks.universal.settings import PerturbationTraining as Config

GROUP = "Attacks"
EXAMPLE = "advkit universal --model clf.pt --norm linf --eps 0.1"


def run(config: Config, context: Context) -> Outcome:
    """Trains a universal perturbation and evaluates it."""
    wanted = requested_files(context)
    models, (learn, whole) = open_subjects(config, context, "train", "test", transfer=config.transfer)
    if config.target is not None:
        class_number(config.target, learn)  # fails now on a class that is not there
    against = threats.choose(config.norm, config.eps, models[0], learn, context.progress)
    refuse_norm(against)
    first, test = len(config.model), random_subset(whole, config.n, config.seed)
    config = config.model_copy(update={"norm": against.norm, "eps": against.eps})
    if context.dry_run:
        training = config.steps * min(config.batch_size, len(learn)) * first
        judging = 3 * len(models) * len(test)
        rows = (("training", f"{training:,}", f"{training:,}"), ("evaluation", f"{judging:,}", "0"))
        return planned(
            f"One perturbation, {against}, trained on {len(learn):,} images of {learn.name} against "
            f"{', '.join(config.model)}, evaluated on {len(test):,} test images.",
            table=Table("cost", ("", "images forward", "images backward"), rows),
            threat=against.model_dump(),
            forwards=training + judging,
            backwards=training,
        )
    inputs = run_identity(models, first, learn, test)
    with context.run_folder("universal", learn.name, config, inputs, beside=wanted) as run:

        def work() -> PerturbationResult:
            result = make_perturbation(
                models[:first],
                models[first:],
                (*config.model, *config.transfer),
                learn,
                test,
                against,
                config,
                run=run,
                progress=context.progress,
            )
            assert result.perturbation is not None
            files.write_arrays(
                run.path / "universal.npz",
                perturbation=result.perturbation.numpy(),
                norm=against.norm,
                eps=against.eps,
            )
            report.draw_perturbation(run.path, config, models[0], test, against, result)
            return result

        result = run.once(PerturbationResult, work)
        export(run.path, "universal", wanted)
        return report.perturbation(config, result, run.path, wanted)
