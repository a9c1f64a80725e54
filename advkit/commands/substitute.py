"""Train a substitute model for transfer attacks."""

from __future__ import annotations

from advkit.attacks.perturb import logits_of
from advkit.core import device as devices
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.stats import clopper_pearson
from advkit.data.classes import widened
from advkit.data.data import Data
from advkit.data.subjects import open_subjects
from advkit.gan.evaluation.subject import Subject, open_subject
from advkit.models.model import Model, evaluation_mode
from advkit.report import trained_attacks as report
from advkit.report.outcome import Outcome, planned
from advkit.trained_attacks.transfer.copied import fresh, gather, train_copy
from advkit.trained_attacks.transfer.queries import BlackBox
from advkit.trained_attacks.transfer.result import SubstituteResult
from advkit.trained_attacks.transfer.settings import SubstituteTraining as Config
from advkit.training.export import export, model_file, parent, store_name, trained_card

GROUP = "Attacks"
EXAMPLE = "advkit substitute --model clf.pt --data mnist --queries 10000"


def run(config: Config, context: Context) -> Outcome:
    """Trains a substitute of a classifier from queries."""
    file = model_file(context)
    (model,), (learn, test) = open_subjects(config, context, "train", "test")
    learn = widened(learn, model.card.labels, model.card.classes)  # the answers may name any of them
    if config.extra_data is not None:
        raise ConfigError("a black-box attacker has no labels; leave --extra-data out")
    device = devices.choose(context.device)
    copy = fresh(config, learn)
    name = store_name(config.name, learn.name, copy.card.architecture, "substitute")
    subject = _generator(config, learn, context)
    data = learn.name if config.data is None else config.data
    config = config.model_copy(update={"name": name, "data": data})
    if context.dry_run:
        real = min(len(learn), config.queries // 2**config.jacobian)
        return planned(
            f"At most {config.queries:,} queries of {config.model}, at most {real:,} of them real images; it "
            f"returns {config.answers}, on which {copy.card.architecture} is trained.",
            f"In the model store as {config.name}.",
            queries=config.queries,
            real=real,
            config=config.model_dump(mode="json"),
        )
    inputs = {
        **model.beginning("original"),
        "generator": subject and subject.hash,
        "real images": learn.fingerprint,
        "test images": test.fingerprint,
    }
    with context.run_folder("substitute", learn.name, config, inputs, beside=file) as run:

        def work() -> SubstituteResult:
            queries = gather(
                BlackBox(model, config.answers, config.queries),
                learn,
                config,
                None if subject is None else lambda n: subject.draw(n, config.seed)[0],
                folder=run.path,
                device=device,
                progress=context.progress,
            )
            trained = train_copy(
                copy, queries, learn.class_names, config, run=run, device=device, progress=context.progress
            )
            judged = _judged(trained.model, model, test)
            card = trained_card(
                trained.model.card,
                "substitute",
                config,
                trained.step,
                lineage=(parent("distilled-from", model),),
                data=learn.facts,
                metrics={"agreement": judged["agreement"]},
            )
            made = Model(trained.model.network, card).eval()
            saved = export(made, name, run, file, overwrite=context.overwrite)
            return SubstituteResult(
                model={**saved, "card": card},
                original={"name": config.model, "hash": model.hash},
                generator=config.generator,
                settings=config.model_dump(mode="json"),
                answers=config.answers,
                limit=config.queries,
                asked={origin: count for origin, count in queries.counts().items() if count},
                test=test.facts,
                trained_per_second=trained.images_per_second,
                **judged,
            )

        return report.substitute(config, run.once(SubstituteResult, work), run.path)


def _generator(config: Config, learn: Data, context: Context) -> Subject | None:
    """The generator whose images are also used as queries."""
    if config.generator is None:
        return None
    subject = open_subject(config.generator, context.device)
    subject.refuse_other_shape(learn.shape)
    return subject


def _judged(copy: Model, model: Model, test: Data) -> dict[str, object]:
    """Figures of the result on the test images."""
    with evaluation_mode(copy), evaluation_mode(model):
        mine, theirs = (logits_of(each, test).argmax(1) for each in (copy, model))
    n, agreed = len(test), int((mine == theirs).sum())
    return {
        "n": n,
        "agreed": agreed,
        "agreement": agreed / n,
        "interval": clopper_pearson(agreed, n),
        "copy_correct": int((mine == test.labels).sum()),
        "original_correct": int((theirs == test.labels).sum()),
    }
