"""Fine-tune a GAN's discriminator as a classifier."""

from __future__ import annotations

from typing import Any

from advkit.core import device as devices
from advkit.core.context import Context
from advkit.core.errors import ModelError
from advkit.data.load import load_splits
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.report import training as report
from advkit.report.outcome import Outcome, planned
from advkit.reuse.classifier import PARTS, from_scratch, layer_rates, pretrained
from advkit.reuse.result import FineTuningResult
from advkit.reuse.settings import FineTuning as Config
from advkit.reuse.tested import errors, facts, threat_of
from advkit.training.export import export, model_file, parent, store_name, trained_card
from advkit.training.extra import load_extra
from advkit.training.loop import fit
from advkit.training.objectives.adversarial import Standard
from advkit.training.trainer import Trained

GROUP = "Classifiers"
EXAMPLE = "advkit finetune --model digits-conv-gan-discriminator --labels 100 --out clf.pt"


def run(config: Config, context: Context) -> Outcome:
    """Makes a classifier of a discriminator or a VAE."""
    file = model_file(context)
    source = _source(config.model)
    train, test = load_splits(config.data, context.data_dir)
    model = pretrained(source, train, config.seed)
    threat = threat_of(config.norm, config.eps, model, test)
    labelled = train
    if config.labels != "all":
        labelled = train.take(train.balanced(config.labels, config.label_set))
    extra = load_extra(config, labelled, context.data_dir)
    part = source.card.architecture.removesuffix("-discriminator")
    name = store_name(config.name, train.name, part, "classifier")
    epochs = config.updates(len(labelled)) // config.batches(len(labelled))
    config = config.model_copy(update={"epochs": epochs, "name": name})
    if context.dry_run:
        updates = config.updates(len(labelled)) * (2 if config.scratch else 1)
        passes = updates * min(config.batch_size, len(labelled))
        return planned(
            f"{config.model} as a classifier of {config.data}, {len(labelled):,} labels, "
            f"{config.mode} fine-tuning: {updates:,} updates, {passes:,} images forward and backward.",
            config=config.model_dump(mode="json"),
            updates=updates,
            passes=passes,
        )
    inputs = {
        "model": model.hash,
        "training images": labelled.fingerprint,
        "extra images": extra and extra.fingerprint,
        "test images": test.fingerprint,
    }
    reused = PARTS[source.card.role]
    rates = layer_rates(model, reused, config.trunk_rate, config.layer_decay)
    with context.run_folder("finetune", train.name, config, inputs, beside=file) as run:

        def trained(start: Model, task: str, **kept: Any) -> tuple[Trained, dict[str, Any]]:
            """A classifier, and its errors on test images."""
            done = fit(
                start,
                config,
                labelled,
                extra=extra,
                objective=Standard(Standard.Config()),
                device=devices.choose(context.device),
                progress=context.progress,
                rates=rates,
                name=task,
                **kept,
            )
            return done, errors(done.model, test, threat, config.seed)

        def work() -> FineTuningResult:
            if config.mode == "probe":
                model.get_submodule(reused).requires_grad_(False)
            done, found = trained(model, "fine-tuning", run=run)
            tested = {"fine-tuned": found}
            if config.scratch:  # keeps no state: after a crash it is trained again, to the same weights
                fresh = from_scratch(source, labelled, config.seed)
                tested["from scratch"] = trained(fresh, "training from scratch")[1]
            card = trained_card(
                model.card,
                "finetune",
                config,
                done.step,
                lineage=(parent("fine-tuned-from", source),),
                data=labelled.facts,
                metrics={"test_accuracy": 1 - found["clean"] / found["n"]},
            )
            classifier = Model(done.model.network, card)
            return FineTuningResult(
                config=config.model_dump(mode="json"),
                model=export(classifier, name, run, file, overwrite=context.overwrite),
                card=card,
                updates=done.step,
                images_per_second=done.images_per_second,
                labels=len(labelled),
                label_ids=None if config.labels == "all" else labelled.ids.tolist(),
                test={
                    "data": test.facts,
                    "n": len(test),
                    "correct": {how: len(test) - row["clean"] for how, row in tested.items()},
                    "attack": facts(threat),
                    "errors": tested,
                },
            )

        return report.fine_tuned(run.once(FineTuningResult, work), run.path)


def _source(name: str) -> Model:
    """What is reused.

    Raises:
        ModelError: there is no such model, or it is neither a discriminator nor a VAE.
    """
    try:
        return load_model(name, role="discriminator")
    except ModelError as fault:
        try:
            return load_model(name, role="vae")
        except ModelError:
            raise fault from None
