"""Search latent space for adversarial examples."""

from __future__ import annotations

from typing import Any

import torch

from advkit.attacks.perturb import logits_of
from advkit.core import files
from advkit.core.context import Context
from advkit.core.errors import DataError
from advkit.data.subjects import open_subjects
from advkit.gan.evaluation.subject import open_subject
from advkit.gan.judge import DIGITS, judge
from advkit.models.model import evaluation_mode
from advkit.report import trained_attacks as report
from advkit.report.outcome import Outcome, planned
from advkit.trained_attacks.latent.invert import invert
from advkit.trained_attacks.latent.natural import search_latent
from advkit.trained_attacks.latent.result import NaturalResult, Searched, successes
from advkit.trained_attacks.latent.settings import Natural as Config
from advkit.trained_attacks.latent.settings import NaturalSettings

GROUP = "Robustness"
EXAMPLE = "advkit natural --model clf.pt --generator digits-conv-gan-ema --n 100"


def run(config: Config, context: Context) -> Outcome:
    """Searches latent space around correctly classified images."""
    (model,), (whole,) = open_subjects(config, context, config.split)
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
    data = chosen.take(right.nonzero()[:, 0])
    n = len(data)
    if context.dry_run:
        inverting = (config.steps + 1) * config.restarts * n
        searching = config.rings * config.samples * n
        return planned(
            f"{n} images are inverted ({inverting:,} images through {config.generator}, both ways), then "
            f"at most {searching:,} are generated around their latent vectors, for {config.model}.",
            n=n,
            inverting=inverting,
            searching=searching,
        )
    inputs = model.beginning() | {"generator": subject.hash, "images": chosen.fingerprint}
    with context.run_folder("natural", whole.name, config, inputs) as run:

        def work() -> NaturalResult:
            x, labels = data.batch(torch.arange(n))
            how: dict[str, Any] = {"ids": data.ids, "progress": context.progress}
            own = invert(subject.generator, x, labels, config, encoder=subject.whole, **how)
            found = search_latent(model, subject.generator, own.latent, labels, config, **how)
            seen = judge()
            read, began, judged = (seen.digits(each) for each in (x, own.images, found.images))
            legitimate = found.found & (judged == labels)
            files.write_arrays(
                run.path / "natural.npz",
                x=found.images.numpy(),
                original=x.numpy(),
                reconstruction=own.images.numpy(),
                latent=found.latent.numpy(),
                y=labels.numpy(),
                id=data.ids.numpy(),
                found=found.found.numpy(),
                legitimate=legitimate.numpy(),
            )
            report.draw_natural(run.path, data, x, own, found, legitimate)
            columns = (data.ids, labels, found.found, found.said, judged, found.distance, found.queries)
            names = ("id", "label", "found", "said", "judged", "distance", "queries")
            rows = zip(*(column.tolist() for column in columns), strict=True)
            return NaturalResult(
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
                **successes(int(found.found.sum()), int(legitimate.sum()), n),
                queries=float(found.queries.float().mean()),
                images=tuple(Searched(**dict(zip(names, row, strict=True))) for row in rows),
            )

        return report.natural(config, run.once(NaturalResult, work), run.path)
