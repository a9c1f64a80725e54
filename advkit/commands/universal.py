"""Train a universal adversarial perturbation."""

from __future__ import annotations

from dataclasses import replace

from advkit.core import files
from advkit.core.context import Context
from advkit.data import threats
from advkit.report import trained_attacks as report
from advkit.report.outcome import Outcome
from advkit.trained_attacks.universal.export import export, requested_files
from advkit.trained_attacks.universal.make import NORMS, Trial, make_perturbation
from advkit.trained_attacks.universal.result import PerturbationResult
from advkit.trained_attacks.universal.settings import PerturbationTraining as Config

GROUP = "Attacks"
EXAMPLE = "advkit universal --model clf.pt --norm linf --eps 0.1"


def run(config: Config, context: Context) -> Outcome:
    """Trains a universal perturbation and evaluates it."""
    wanted = requested_files(context)
    trial = Trial.named(config, context)
    learn, test = trial.learn, trial.test
    against = threats.choose(config.norm, config.eps, trial.models[0], learn, context.progress)
    against.refuse_other_norms(NORMS, "universal perturbations")
    config = config.model_copy(update={"norm": against.norm, "eps": against.eps})
    if context.dry_run:
        return report.universal_plan(
            f"One perturbation, {against}, trained on {len(learn):,} images of {learn.name} against "
            f"{', '.join(config.model)}, evaluated on {len(test):,} test images.",
            config,
            trial,
            3 * len(test),
            threat=against.model_dump(),
        )
    with context.run_folder("universal", learn.name, config, trial.inputs, beside=wanted) as run:

        def work() -> PerturbationResult:
            result = make_perturbation(replace(trial, run=run), against, config)
            assert result.perturbation is not None
            files.write_arrays(
                run.path / "universal.npz",
                perturbation=result.perturbation.numpy(),
                norm=against.norm,
                eps=against.eps,
            )
            report.draw_perturbation(run.path, config, trial.models[0], test, against, result)
            return result

        result = run.once(PerturbationResult, work)
        export(run.path, "universal", wanted)
        return report.perturbation(config, result, run.path, wanted)
