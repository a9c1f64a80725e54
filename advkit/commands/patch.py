"""Train an adversarial patch."""

from __future__ import annotations

from advkit.core import files, images
from advkit.core.context import Context
from advkit.data.subjects import open_subjects
from advkit.report import trained_attacks as report
from advkit.report.outcome import Outcome, Table, planned
from advkit.trained_attacks.universal.change import Patch
from advkit.trained_attacks.universal.export import export, requested_files, run_identity
from advkit.trained_attacks.universal.judge import passes, random_subset
from advkit.trained_attacks.universal.make import class_number, make_patch
from advkit.trained_attacks.universal.result import PatchResult
from advkit.trained_attacks.universal.settings import PatchTraining as Config

GROUP = "Attacks"
EXAMPLE = "advkit patch --model clf.pt --target 3 --out patch.png"


def run(config: Config, context: Context) -> Outcome:
    """Trains a patch and evaluates it."""
    wanted = requested_files(context)
    models, (learn, whole) = open_subjects(config, context, "train", "test", transfer=config.transfer)
    class_number(config.target, learn)  # complains now of a class that is not there
    first, test = len(config.model), random_subset(whole, config.n, config.seed)
    if context.dry_run:
        kind = Patch(config, learn.shape)
        training = config.steps * min(config.batch_size, len(learn)) * first
        judging = len(models) * passes(kind, len(test))
        rows = (("training", f"{training:,}", f"{training:,}"), ("evaluation, at most", f"{judging:,}", "0"))
        return planned(
            f"A patch of {kind.pixels}x{kind.pixels} pixels, trained against {', '.join(config.model)} "
            f"on {len(learn):,} images of {learn.name}, evaluated on at most {len(test):,} test images.",
            table=Table("cost", ("", "images forward", "images backward"), rows),
            pixels=kind.pixels,
            forwards=training + judging,
            backwards=training,
        )
    inputs = run_identity(models, first, learn, test)
    with context.run_folder("patch", learn.name, config, inputs, beside=wanted) as run:

        def work() -> PatchResult:
            result = make_patch(
                models[:first],
                models[first:],
                (*config.model, *config.transfer),
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
            report.draw_patch(run.path, config, models[0], test, result)
            return result

        result = run.once(PatchResult, work)
        export(run.path, "patch", wanted)
        return report.patch(config, result, run.path, wanted)
