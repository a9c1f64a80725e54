"""Train an adversarial patch."""

from __future__ import annotations

from dataclasses import replace

from advkit.core import files, images
from advkit.core.context import Context
from advkit.report import trained_attacks as report
from advkit.report.outcome import Outcome
from advkit.trained_attacks.universal.change import Patch
from advkit.trained_attacks.universal.export import export, requested_files
from advkit.trained_attacks.universal.judge import passes
from advkit.trained_attacks.universal.make import Trial, make_patch
from advkit.trained_attacks.universal.result import PatchResult
from advkit.trained_attacks.universal.settings import PatchTraining as Config

GROUP = "Attacks"
EXAMPLE = "advkit patch --model clf.pt --target 3 --out patch.png"


def run(config: Config, context: Context) -> Outcome:
    """Trains a patch and evaluates it."""
    wanted = requested_files(context)
    trial = Trial.named(config, context)
    learn, test = trial.learn, trial.test
    if context.dry_run:
        kind = Patch(config, learn.shape)
        return report.universal_plan(
            f"A patch of {kind.pixels}x{kind.pixels} pixels, trained against {', '.join(config.model)} "
            f"on {len(learn):,} images of {learn.name}, evaluated on at most {len(test):,} test images.",
            config,
            trial,
            passes(kind, len(test)),
            pixels=kind.pixels,
        )
    with context.run_folder("patch", learn.name, config, trial.inputs, beside=wanted) as run:

        def work() -> PatchResult:
            result = make_patch(replace(trial, run=run), config)
            assert result.patch is not None
            files.write_arrays(
                run.path / "patch.npz",
                patch=images.to_uint8(result.patch).numpy(),
                form=config.form,
                scale=config.scale,
                rotation=config.rotation,
                target=result.target,
            )
            report.draw_patch(run.path, config, trial.models[0], test, result)
            return result

        result = run.once(PatchResult, work)
        export(run.path, "patch", wanted)
        return report.patch(config, result, run.path, wanted)
