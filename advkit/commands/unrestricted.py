"""Generate unrestricted adversarial examples."""

from __future__ import annotations

import torch

from advkit.core import device as devices
from advkit.core import files
from advkit.core.context import Context
from advkit.core.errors import DataError, ModelError
from advkit.core.levels import as_image
from advkit.core.stats import clopper_pearson
from advkit.gan.evaluation.subject import open_subject
from advkit.gan.judge import DIGITS, judge
from advkit.gan.labelled import common_classes
from advkit.gan.sample import sample
from advkit.models.inspect import inspect_classifier
from advkit.models.load import load_model
from advkit.report import trained_attacks as report
from advkit.report.outcome import Outcome, planned
from advkit.trained_attacks.latent.result import Example, UnrestrictedResult, successes
from advkit.trained_attacks.latent.settings import Unrestricted as Config
from advkit.trained_attacks.latent.settings import UnrestrictedSettings
from advkit.trained_attacks.latent.unrestricted import auxiliary_classifier, construct
from advkit.trained_attacks.universal.make import class_number

GROUP = "Robustness"
EXAMPLE = "advkit unrestricted --model clf.pt --generator digits-conditional-ema"


def run(config: Config, context: Context) -> Outcome:
    """Searches a generator's images for misclassified ones."""
    device = str(devices.choose(context.device))
    subject = open_subject(config.generator, device)
    if subject.classes is None:
        raise ModelError(
            f"{config.generator} is unconditional; train a conditional generator with "
            "advkit gan-train --conditional projection"
        )
    names = subject.card.labels
    if names != DIGITS:
        raise DataError(
            f"the judge network reads digits, and {config.generator} has other classes; "
            "choose a generator of digits"
        )
    said = config.said | {"shape": config.shape or subject.card.shape}
    model = load_model(config.model, role="classifier", classes=subject.classes, **said, device=device)
    common_classes(subject.generator, model)
    few, _ = sample(subject.generator, 8, config.seed)
    for note in inspect_classifier(model, as_image(few.to(device)), subject.classes).notes:
        context.progress.say(f"{config.model}: {note}")
    auxiliary_model = None if config.auxiliary is None else load_model(config.auxiliary, device=device)
    auxiliary = auxiliary_model and auxiliary_classifier(
        auxiliary_model, subject.generator, model, config.auxiliary or ""
    )
    target = None if config.target is None else class_number(config.target, names, config.generator)
    if context.dry_run:
        passes = config.passes * config.n
        return planned(
            f"{config.n:,} examples by {config.search}, at most {config.passes} passes each through "
            f"{config.model}: {passes:,}.",
            n=config.n,
            passes=passes,
        )
    hashes = {
        **model.beginning(),
        "generator": subject.hash,
        "auxiliary": auxiliary_model and auxiliary_model.hash,
    }
    with context.run_folder("unrestricted", "digits", config, hashes) as run:

        def work() -> UnrestrictedResult:
            made = construct(
                model,
                subject.generator,
                config.n,
                config,
                auxiliary=auxiliary,
                target=target,
                progress=context.progress,
            )
            seen = judge()
            began, judged = seen.digits(made.start), seen.digits(made.images)
            legitimate = made.found & (judged == made.labels)
            files.write_arrays(
                run.path / "unrestricted.npz",
                x=made.images.numpy(),
                start=made.start.numpy(),
                latent=made.latent.numpy(),
                y=made.labels.numpy(),
                said=made.said.numpy(),
                found=made.found.numpy(),
                legitimate=legitimate.numpy(),
            )
            report.draw_unrestricted(run.path, made, legitimate)
            n, found, good = len(made.labels), int(made.found.sum()), int(legitimate.sum())
            ids = torch.arange(n)
            columns = (ids, made.labels, made.start_said, began, made.found, made.said, judged, made.passes)
            keys = ("id", "label", "start_said", "start_judged", "found", "said", "judged", "passes")
            rows = zip(*(column.tolist() for column in columns), strict=True)
            return UnrestrictedResult(
                model=config.model,
                model_hash=model.hash,
                generator=config.generator,
                generator_hash=subject.hash,
                auxiliary=config.auxiliary,
                auxiliary_hash=hashes["auxiliary"],
                judge=seen.hash,
                search=config.search,
                target=target,
                target_name="" if target is None else names[target],
                settings=config.model_dump(mode="json", include=set(UnrestrictedSettings.model_fields)),
                n=n,
                start_wrong=int((made.start_said != made.labels).sum()),
                start_read=int((began == made.labels).sum()),
                **successes(found, good, n),
                raw_interval=clopper_pearson(found, n),
                legitimacy_interval=clopper_pearson(good, found),
                passes=float(made.passes.float().mean()),
                examples=tuple(Example(**dict(zip(keys, row, strict=True))) for row in rows),
            )

        return report.unrestricted(config, run.once(UnrestrictedResult, work), run.path)
