"""Train a perturbation generator (AdvGAN)."""

from __future__ import annotations

import torch

from advkit.attacks.advgan import NORMS
from advkit.core.context import Context
from advkit.data import threats
from advkit.data.classes import widened
from advkit.data.subjects import open_subjects
from advkit.models.card import ModelCard, ThreatFacts
from advkit.models.model import Model
from advkit.models.network import numbers
from advkit.report import trained_attacks as report
from advkit.report.outcome import Outcome, Table, planned
from advkit.trained_attacks.generators.game import GENERATOR, AdvGanGame
from advkit.trained_attacks.generators.make import make_generator
from advkit.trained_attacks.generators.result import AdvGanResult
from advkit.trained_attacks.generators.settings import AdvGanSettings
from advkit.trained_attacks.generators.settings import AdvGanTraining as Config
from advkit.trained_attacks.universal.judge import random_subset
from advkit.trained_attacks.universal.make import class_number
from advkit.training.export import export, model_file, parent, store_name, trained_card

GROUP = "Attacks"
EXAMPLE = "advkit advgan-train --model clf.pt --norm linf --eps 0.15"


def run(config: Config, context: Context) -> Outcome:
    """Trains a perturbation generator and evaluates it."""
    file = model_file(context)
    (model,), (learn, whole) = open_subjects(config, context, "train", "test")
    learn = widened(learn, model.card.labels, model.card.classes)  # the answers may name any of them
    target = None if config.target is None else class_number(config.target, learn.class_names, learn.name)
    against = threats.choose(config.norm, config.eps, model, learn, context.progress)
    against.refuse_other_norms(NORMS, "perturbation generators")
    test = random_subset(whole, config.n, config.seed)
    name = store_name(config.name, learn.name, "advgan")
    config = config.model_copy(update={"norm": against.norm, "eps": against.eps, "name": name})
    # Fails before there is a folder.
    game = AdvGanGame(config, against, learn.shape, target, torch.device("cpu"))
    if context.dry_run:
        passes = config.steps * min(config.batch_size, len(learn))
        rows = [("classifier", "", f"{passes:,}", f"{passes:,}")]
        for part, network in game.networks.items():
            each = passes if part == "generator" else 3 * passes
            rows.append((part, f"{numbers(network):,}", f"{each:,}", f"{each:,}"))
        columns = ("network", "parameters", "images forward", "images backward")
        return planned(
            f"A generator of {against} changes, trained on those of {len(learn):,} images of {learn.name} "
            f"that {config.model} classifies correctly, evaluated on those of {len(test):,} test images.",
            f"In the model store as {config.name}.",
            table=Table("cost", columns, tuple(rows)),
            threat=against.model_dump(),
            forwards=passes,
            backwards=passes,
        )
    inputs = {
        **model.beginning(),
        "training images": learn.fingerprint,
        "test images": test.fingerprint,
    }
    threat = ThreatFacts(norm=against.norm, eps=against.eps)
    with context.run_folder("advgan-train", learn.name, config, inputs, beside=file) as run:

        def work() -> AdvGanResult:
            found = make_generator(
                model, learn, test, against, target, config, run=run, progress=context.progress
            )
            card = ModelCard(
                role="perturbation-generator",
                architecture=GENERATOR,
                config=config.generator,
                shape=learn.shape,
                lineage=(parent("trained-against", model),),
                data=learn.facts,
                threat=threat,
                metrics={"success_rate": found.figures["rate"]},
            )
            card = trained_card(card, "advgan-train", config, config.steps)
            generator = Model(found.generator, card)
            report.draw_advgan(run.path, config, generator, model, test, against, target)
            saved = export(generator, name, run, file, overwrite=context.overwrite)
            return AdvGanResult(
                model={**saved, "card": card},
                victim={"name": config.model, "hash": model.hash},
                test=test.facts,
                settings=config.model_dump(mode="json", include=set(AdvGanSettings.model_fields)),
                threat=threat,
                target=target,
                target_name="" if target is None else learn.class_names[target],
                **found.figures,
            )

        return report.advgan(config, run.once(AdvGanResult, work), run.path)
