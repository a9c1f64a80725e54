"""Train a substitute model for transfer attacks."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from advkit import __version__
from advkit.attacks.perturb import logits_of
from advkit.core import device as devices
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, by_size
from advkit.core.runs import RunFolder, environment, now
from advkit.core.stats import accuracy, clopper_pearson
from advkit.data.data import Data
from advkit.data.subjects import flags, open_subjects
from advkit.gan.evaluation.subject import Subject, open_subject
from advkit.models.card import Parent
from advkit.models.model import Model, evaluation_mode
from advkit.report.figures.training import write_curves
from advkit.report.outcome import Outcome, Picture, Table
from advkit.trained_attacks.transfer.copied import fresh, gather, train_copy
from advkit.trained_attacks.transfer.queries import BlackBox, Queries
from advkit.trained_attacks.transfer.result import SubstituteResult
from advkit.trained_attacks.transfer.settings import SubstituteTraining as Config
from advkit.training.export import export, known_as, model_file, store_name
from advkit.training.trainer import Trained

GROUP = "Attacks"
EXAMPLE = "advkit substitute --model clf.pt --data mnist --queries 10000"


def run(config: Config, context: Context) -> Outcome:
    """Trains a substitute of a classifier from queries; the same command resumes a killed run.

    Raises:
        UserError: something is wrong with the models, the data or the options.
    """
    file = model_file(context)
    (model,), (learn, test) = open_subjects(
        [config.model], config.data, ("train", "test"), arch=config.arch, said=config, context=context
    )
    if config.extra_data is not None:
        raise ConfigError("a black-box attacker has no labels; leave --extra-data out")
    device = devices.choose(context.device)
    copy = fresh(config, learn)
    name = store_name(config.name, learn.name, copy.card.architecture, "substitute")
    subject = _generator(config, learn, context)
    config = config.model_copy(
        update={"name": name, "data": learn.name if config.data is None else config.data}
    )
    if context.dry_run:
        return _plan(config, copy, learn)
    folder = None if file else context.out
    inputs = {
        "original": model.hash,
        "generator": subject and subject.hash,
        "real images": learn.fingerprint,
        "test images": test.fingerprint,
    }
    with RunFolder.open(
        "substitute", learn.name, config, folder, inputs=inputs, resume=context.resume
    ) as run:

        def work() -> SubstituteResult:
            begun = time.perf_counter()
            box = BlackBox(model, config.answers, config.queries)
            queries = gather(
                box,
                learn,
                config,
                None if subject is None else _drawing(subject, config.seed),
                folder=run.path,
                device=device,
                progress=context.progress,
            )
            trained = train_copy(
                copy, queries, learn.class_names, config, run=run, device=device, progress=context.progress
            )
            write_curves(run.path / "curves.png", trained.history, title=f"{name}: agreement on the queries")
            judged = _judged(trained.model, model, test)
            made = _made(config, trained, model, learn, judged["agreement"])
            written = export(made, name, run, file, overwrite=context.overwrite)
            files = tuple(map(str, written))
            result = SubstituteResult(
                model={"name": name, "hash": made.hash, "files": files, "card": made.card},
                original={"name": config.model, "hash": model.hash},
                generator=config.generator,
                settings=config.model_dump(mode="json"),
                answers=config.answers,
                limit=config.queries,
                asked=_asked(queries),
                test=test.facts,
                trained_per_second=trained.images_per_second,
                seconds=time.perf_counter() - begun,
                environment=environment(),
                **judged,
            )
            return result

        result = run.once(SubstituteResult, work, context.progress)
        return _outcome(config, result, run.path)


def _generator(config: Config, learn: Data, context: Context) -> Subject | None:
    """The generator whose images are also used as queries."""
    if config.generator is None:
        return None
    subject = open_subject(config.generator, context.device)
    if subject.card.shape != learn.shape:
        theirs, ours = map(by_size, (subject.card.shape, learn.shape))
        raise DataError(
            f"{config.generator} makes {theirs} images but the classifier takes {ours} images "
            "(channels x height x width); name a generator of such images"
        )
    return subject


def _drawing(subject: Subject, seed: int) -> Callable[[int], Tensor]:
    return lambda n: subject.draw(n, seed)[0]


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


def _asked(queries: Queries) -> dict[str, int]:
    return {origin: count for origin, count in queries.counts().items() if count}


def _made(config: Config, trained: Trained, original: Model, learn: Data, agreement: object) -> Model:
    """The substitute with its card."""
    digest = original.hash
    card = trained.model.card.model_copy(
        update={
            "lineage": (Parent(relation="distilled-from", hash=digest, name=known_as(digest)),),
            "data": learn.facts,
            "training": {"command": "substitute", **config.model_dump(mode="json"), "step": trained.step},
            "metrics": {"agreement": agreement},
            "created": now(),
            "advkit": __version__,
        }
    )
    return Model(trained.model.network, card).eval()


def _plan(config: Config, copy: Model, learn: Data) -> Outcome:
    real = min(len(learn), config.queries // 2**config.jacobian)
    return Outcome(
        title="what would be done",
        sentences=(
            f"At most {config.queries:,} queries of {config.model}, at most {real:,} of them real images; it "
            f"returns {config.answers}, on which {copy.card.architecture} is trained.",
            f"In the model store as {config.name}.",
        ),
        result={"queries": config.queries, "real": real, "config": config.model_dump(mode="json")},
    )


def _outcome(config: Config, result: SubstituteResult, folder: Path) -> Outcome:
    n = result.n
    rows = (
        ("original", accuracy(result.original_correct, n), ""),
        ("substitute", accuracy(result.copy_correct, n), accuracy(result.agreed, n)),
    )
    origins = ", ".join(f"{count:,} {origin}" for origin, count in result.asked.items())
    asked = f"{result.queries:,} of {result.limit:,} queries were made ({origins})."
    subject = flags([config.model], config.data or "", arch=config.arch, said=config)
    transfer = f"advkit attack {subject} --surrogate {shlex.quote(result.model.files[0])}"
    return Outcome(
        title=f"a substitute of {config.model}",
        sentences=(
            result.sentence,
            asked,
            f"In the model store as {result.model.name}.",
        ),
        tables=(
            Table(
                f"{n:,} test images of {result.test.name}",
                ("", "accuracy [95 % interval]", "agreement with the original"),
                rows,
            ),
        ),
        pictures=(
            Picture(
                "curves", folder / "curves.png", "Agreement with the original on the queries during training."
            ),
        ),
        files=(*map(Path, result.model.files), folder),
        next=(
            f"{transfer} --attack pgd",
            f"{transfer} --attack pgd,square",
            f"advkit models lineage {result.model.name}",
        ),
        result=result.as_values(),
    )
