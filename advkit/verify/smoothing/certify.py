"""Certified radii of a data set's images, from Python."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advkit.attacks.perturb import device_of, logits_of
from advkit.core import distributed, memory
from advkit.core.errors import ConfigError
from advkit.core.journal import Record
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder, environment
from advkit.data.data import Data
from advkit.data.load import as_data
from advkit.models.inspect import inspect_classifier
from advkit.models.load import as_classifier
from advkit.models.mode import evaluation_mode
from advkit.verify.smoothing.classifier import ALPHA, PASS, SAMPLES, SELECTION, SmoothedClassifier
from advkit.verify.smoothing.result import SmoothedVerdict, SmoothingResult
from advkit.verify.smoothing.statistics import refuse_too_few


@distributed.together()
def certify_smoothed(
    model: nn.Module | str | Path,
    data: Data | str | tuple[Any, Any],
    sigma: float,
    *,
    samples: int = SAMPLES,
    selection: int = SELECTION,
    alpha: float = ALPHA,
    seed: int = 0,
    skip: int = 1,
    n: int | None = None,
    batch_size: int = PASS,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> SmoothingResult:
    """Certified accuracy of the smoothed classifier, by radius (CERTIFY in Cohen et al., ICML 2019).

    For each image the smoothed classifier's class is constant within the certified radius, with probability
    1 - ``alpha`` over the noise. All samples are drawn, since the votes are reported. Assumptions: rounding
    is negligible, and PyTorch's generator is random.

    In a process group (`torch.distributed`), every process calls this at the same time, with its own copy of
    the model. They divide the images among them, and all return the result of a single process.

    Args:
        model: a module from images (N, C, H, W) to logits or probabilities (N, K), or whatever `load_model`
            takes; smoothed on its own device, and left unchanged.
        data: `Data`, a data set's name (its test split), or (images, labels).
        sigma: standard deviation of the noise, for pixels in [0, 1].
        samples: noisy copies that certify an image's radius.
        selection: other noisy copies, which select its class before.
        alpha: probability that an image's certificate is wrong.
        seed: the noise follows from it and the images' ids; it differs between GPU and CPU.
        skip: take every ``skip``-th image.
        n: number of these images, the first ones; None: all.
        batch_size: noisy copies in a pass; it changes the result by rounding at most.
        run: folder for the record; an interrupted run resumes from it, also with another number of processes.
        progress: shows how many images are done.

    Raises:
        ModelError: the model does not behave as a classifier, or is not deterministic.
        DataError: the images or labels do not fit.
        ConfigError: sigma, alpha or skip out of range, or too few samples to certify anything.
    """
    begun = time.perf_counter()
    if distributed.rank() > 0:
        progress = SILENT
    whole = as_data(data)
    images = chosen(whole, skip, n)
    judged = as_classifier(model, images.shape)
    few, _ = images.batch(torch.arange(min(8, len(images))), device_of(judged))
    classes = images.classes if images.classes_known else None
    notes = inspect_classifier(judged, few, classes, only_decisions=True).notes
    smoothed = SmoothedClassifier(judged, sigma, alpha=alpha, seed=seed, batch_size=batch_size)
    refuse_too_few(samples, alpha, smoothed.sigma)
    digest = judged.hash
    if len(set(distributed.gather((digest, images.fingerprint)))) > 1:
        raise ConfigError(
            "the processes have different models or images; call certify_smoothed with the same in all"
        )
    if run is not None:
        noise = (smoothed.sigma, selection, samples, alpha, seed, device_of(judged).type)
        run.begin_with(model=digest, images=images.fingerprint, **{"noise (and where it is drawn)": noise})
    with memory.kept(), evaluation_mode(judged):
        bare = int((logits_of(judged, images).argmax(1) == images.labels).sum())
        folder = run.path if run is not None else None
        verdicts = _certified(smoothed, images, selection, samples, folder, progress)
    return SmoothingResult.of(
        verdicts,
        sigma=smoothed.sigma,
        samples=samples,
        alpha=alpha,
        selection=selection,
        seed=seed,
        skip=skip,
        bare_correct=bare,
        status="complete" if len(images) == len(whole) else "partial",
        model_hash=digest,
        card=judged.card,
        data=images.facts,
        notes=tuple(notes),
        seconds=time.perf_counter() - begun,
        environment=environment(),
    )


def chosen(whole: Data, skip: int, n: int | None) -> Data:
    """The first ``n`` of every ``skip``-th image, with their ids.

    Raises:
        ConfigError: ``skip`` or ``n`` is not positive.
    """
    if skip < 1:
        raise ConfigError(f"skip is {skip}; it must be 1 or more")
    return (whole if skip == 1 else whole.take(torch.arange(0, len(whole), skip))).limit(n)


def _certified(
    smoothed: SmoothedClassifier,
    images: Data,
    selection: int,
    samples: int,
    folder: Path | None,
    progress: Progress,
) -> tuple[SmoothedVerdict, ...]:
    """A verdict for each image, in the order of the data."""
    device, ids = device_of(smoothed), images.ids.tolist()
    with Record[int, SmoothedVerdict](folder, "smoothed", 1, SmoothedVerdict, ids) as record:
        missing = [row for row, sample in enumerate(ids) if sample not in record.entries]
        mine = missing[distributed.rank() :: distributed.world()]
        earlier = len(ids) - len(missing)
        if earlier:
            progress.say(f"{earlier} of {len(ids)} images were certified earlier")
        radii = right = 0.0
        name = "smoothing" if distributed.world() == 1 else f"smoothing, 1 of {distributed.world()} shares"
        with progress.task(name, len(mine), unit="image") as task:
            for done, row in enumerate(mine, start=1):
                x, label = images.batch(torch.tensor([row]), device)
                found = smoothed.certify_one(
                    x[0], ids[row], selection, samples, lambda votes: task.underway(votes / samples)
                )
                own = int(label)
                correct = found.predicted == own
                status = "abstained" if found.radius == 0 else "right" if correct else "wrong"
                record.add(
                    SmoothedVerdict(
                        id=ids[row],
                        label=own,
                        status=status,
                        selected=found.selected,
                        votes=found.votes,
                        share=found.share,
                        radius=found.radius,
                    )
                )
                right, radii = right + correct, radii + correct * found.radius
                task.advance(1, accuracy=right / done, average_radius=radii / done)
        record.finish()
        return tuple(record.entries[sample] for sample in ids)
