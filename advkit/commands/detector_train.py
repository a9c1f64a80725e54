"""Train a detector of adversarial examples."""

from __future__ import annotations

from advkit.attacks.perturb import make
from advkit.core import device as devices
from advkit.core.context import Context
from advkit.data import threats
from advkit.data.subjects import open_subjects
from advkit.defences.detector import Detect, as_detector, learner
from advkit.defences.examples import examples
from advkit.defences.result import DetectorResult
from advkit.defences.settings import DetectorTraining as Config
from advkit.models.card import ThreatFacts
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.report import defences as report
from advkit.report.outcome import Outcome, planned
from advkit.training.export import export, model_file, parent, store_name, trained_card
from advkit.training.loop import fit

GROUP = "Defences"
EXAMPLE = "advkit detector-train --model clf.pt --attack pgd --out det.pt"


def run(config: Config, context: Context) -> Outcome:
    """Trains a detector."""
    file = model_file(context)
    (classifier,), (train,) = open_subjects(config, context, "train", evaluated=False)
    against = threats.choose(config.norm, config.eps, classifier, train, context.progress)
    for attack in config.attack:
        make(attack, against, config.parameters.get(attack))  # fails now on what is wrong with it
    source = None if config.discriminator is None else load_model(config.discriminator, role="discriminator")
    learning = learner(config, train, source)
    rest, held = train.limit(config.n).holdout(config.holdout)
    part = (source.card if source else learning.card).architecture.removesuffix("-discriminator")
    name = store_name(config.name, train.name, part, "detector")
    data = train.name if config.data is None else config.data
    config = config.model_copy(update={"data": data, "norm": against.norm, "eps": against.eps, "name": name})
    if context.dry_run:
        updates = config.updates(len(rest) * (1 + len(config.attack)))
        return planned(
            f"{', '.join(config.attack)} on {len(rest):,} training images and {len(held):,} held-out ones of "
            f"{config.data}; {learning.card.architecture} learns to tell them from clean ones, "
            f"{updates:,} updates at most.",
            f"In the model store as {name}.",
            images=len(rest),
            held=len(held),
            updates=updates,
        )
    inputs = {
        **classifier.beginning("classifier"),
        "detector": learning.hash,
        "images": rest.fingerprint,
        "held-out images": held.fingerprint,
    }
    with context.run_folder("detector-train", train.name, config, inputs, beside=file) as run:

        def work() -> DetectorResult:
            learn, check = (
                examples(
                    classifier,
                    images,
                    against,
                    config.attack,
                    config.parameters,
                    seed=config.seed,
                    file=run.path / kept,
                    progress=context.progress,
                )
                for images, kept in ((rest, "adversarial.npz"), (held, "adversarial-held.npz"))
            )
            trained = fit(
                learning,
                config,
                learn,
                check,
                objective=Detect(learn),
                run=run,
                device=devices.choose(context.device),
                progress=context.progress,
                name="training the detector",
            )
            made = as_detector(trained.best)
            lineage = [parent("trained-against", classifier)]
            if source is not None:
                lineage.append(parent("fine-tuned-from", source))
            card = trained_card(
                made.card,
                "detector-train",
                config,
                trained.step,
                lineage=tuple(lineage),
                data=train.facts,
                threat=ThreatFacts(norm=against.norm, eps=against.eps),
                metrics={"held_out_accuracy": trained.scores["clean"]},
            )
            model = Model(made.network, card).eval()
            return DetectorResult(
                config=config.model_dump(mode="json"),
                model=export(model, name, run, file, overwrite=context.overwrite),
                card=card,
                kept_step=trained.step,
                images_per_second=trained.images_per_second,
                learnt=learn.labels.bincount(minlength=2).tolist(),
                held_out=check.labels.bincount(minlength=2).tolist(),
                held_out_accuracy=trained.scores["clean"],
            )

        return report.trained(config, run.once(DetectorResult, work), run.path)
