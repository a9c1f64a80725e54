"""The accuracy under all corruptions; it can be resumed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from advkit.attacks.engine.oracle import query
from advkit.attacks.perturb import device_of
from advkit.core.errors import ConfigError
from advkit.core.journal import Record
from advkit.core.progress import SILENT, Progress, Share
from advkit.core.runs import RunFolder
from advkit.data.corruption import corrupted, family_of, refuse
from advkit.data.data import Data
from advkit.data.subjects import Subject
from advkit.evaluation.corruptions.result import CorruptionResult, CorruptionVerdict, RelativeErrors
from advkit.evaluation.corruptions.settings import Corruptions
from advkit.models.model import Model, evaluation_mode


def measure(
    subject: Subject,
    config: Corruptions,
    *,
    baseline: tuple[str, CorruptionResult] | None = None,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> CorruptionResult:
    """Clean accuracy, and accuracy under each corruption in each severity.

    Args:
        subject: a classifier and the images.
        config: the corruptions; its model, data and baseline are ignored.
        baseline: the name of another model and its result on the same images, for relative errors.
        run: folder for the record; an interrupted run resumes from it.
        progress: shows how many images are done.

    Raises:
        ConfigError: the run began with another model or other images, a corruption does not fit the images,
            or the baseline is of other images or corruptions.
        DataError: the images are too small.
    """
    model, data, ids = subject.model, subject.images, subject.images.ids.tolist()
    names, severities = tuple(dict.fromkeys(config.corruptions)), tuple(sorted(set(config.severities)))
    refuse(names, data.shape)
    if run is not None:
        run.begin_with(**subject.beginning)
    folder = run.path if run is not None else None
    record = Record[int, CorruptionVerdict](folder, "corrupted", 1, CorruptionVerdict, ids, progress=progress)
    tried = len(names) * len(severities)
    with evaluation_mode(model), record, torch.no_grad():
        known = record.entries
        if known:
            progress.say(f"{len(known)} of {len(data)} images were classified earlier")
        right = sum(tried - verdict.errors for verdict in known.values())
        with progress.task("corruptions", len(data), done=len(known), unit="image") as task:
            for rows in data.pieces(config.batch_size):
                if all(ids[row] in known for row in rows.tolist()):
                    continue
                for verdict in _verdicts(model, data, rows, names, severities, config):
                    if verdict.id in known:
                        continue
                    record.add(verdict)
                    right += tried - verdict.errors
                    task.advance(1, **{"mean accuracy": Share(right / (tried * len(known)))})
        record.finish()
    result = CorruptionResult.of(
        tuple(known[sample] for sample in ids),
        names,
        severities,
        **subject.about(),
        constants=config.constants or family_of(data.shape),
        seed=config.seed,
        forwards=len(data) * (tried + 1),
    )
    return result if baseline is None else result.model_copy(update={"relative": relative(result, *baseline)})


def _verdicts(
    model: Model,
    data: Data,
    rows: Tensor,
    names: tuple[str, ...],
    severities: tuple[int, ...],
    config: Corruptions,
) -> Iterator[CorruptionVerdict]:
    """One for each image of a batch, corrupted on the CPU, so that all devices see the same images."""
    device, (x, label), ids = device_of(model), data.batch(rows), data.ids[rows]

    def misclassified(images: Tensor) -> Tensor:
        return query(model, images.to(device), ids).argmax(1).cpu() != label

    clean = misclassified(x)
    wrong: list[dict[str, tuple[int, ...]]] = [{} for _ in ids]
    for name in names:
        for severity in severities:
            changed = corrupted(x, ids, name, severity, family=config.constants, seed=config.seed)
            for row in misclassified(changed).nonzero()[:, 0].tolist():
                wrong[row][name] = (*wrong[row].get(name, ()), severity)
    for row, lost in enumerate(wrong):
        status = "misclassified" if clean[row] else "broken" if lost else "robust"
        about = {"id": int(ids[row]), "label": int(label[row]), "status": status, "wrong": lost}
        yield CorruptionVerdict.model_validate(about)


def relative(result: CorruptionResult, name: str, other: CorruptionResult) -> RelativeErrors:
    """The errors relative to those of another model (Hendrycks and Dietterich 2019).

    Raises:
        ConfigError: that is of other images or corruptions; its code is ``not-comparable``.
    """
    refuse_others(result, other)
    errors: dict[str, float | None] = {}
    for corruption in result.corruptions:
        mine, theirs = (1 - each.accuracy_of(corruption) for each in (result, other))
        errors[corruption] = mine / theirs if theirs > 0 else None
    known = [error for error in errors.values() if error is not None]
    return RelativeErrors(
        model_hash=other.model_hash,
        name=name,
        mean_accuracy=other.mean_accuracy,
        errors=errors,
        mean_corruption_error=sum(known) / len(known) if known else None,
    )


def refuse_others(one: CorruptionResult, two: CorruptionResult) -> None:
    """Refuses results of other images or corruptions.

    Raises:
        ConfigError: they are; its code is ``not-comparable``.
    """
    facts = [
        {
            "images": [each.data.name, each.data.split, [verdict.id for verdict in each.verdicts]],
            "versions of the images": each.data.fingerprint,
            "labels": [verdict.label for verdict in each.verdicts],
            "corruptions": each.corruptions,
            "severities": each.severities,
            "constants": each.constants,
            "seeds": each.seed,
        }
        for each in (one, two)
    ]
    for what in facts[0]:
        if facts[0][what] != facts[1][what]:
            raise ConfigError(
                f"the two results are of other {what}; measure both with the same settings",
                code="not-comparable",
            )
