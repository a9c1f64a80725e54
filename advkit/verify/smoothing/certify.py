"""Certified radii of a data set's images, from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from advkit.attacks.perturb import device_of, logits_of
from advkit.core import distributed
from advkit.core.config import validate
from advkit.core.errors import ConfigError
from advkit.core.journal import Record
from advkit.core.modes import own_modes
from advkit.core.progress import SILENT, Progress, Share
from advkit.core.runs import RunFolder
from advkit.core.shards import ShardResult
from advkit.data.data import Data
from advkit.data.subjects import Subject
from advkit.models.model import evaluation_mode
from advkit.verify.smoothing.classifier import ALPHA, PASS, SAMPLES, SELECTION, SmoothedClassifier
from advkit.verify.smoothing.result import SmoothedVerdict, SmoothingResult
from advkit.verify.smoothing.settings import SmoothedCertification
from advkit.verify.smoothing.statistics import refuse_too_few


def certify_smoothed(
    model: nn.Module | str | Path,
    data: Any,
    sigma: float,
    *,
    samples: int = SAMPLES,
    selection: int = SELECTION,
    alpha: float = ALPHA,
    seed: int = 0,
    skip: int = 1,
    n: int | None = None,
    first: bool = False,
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
        data: `Data`, a data set's name, (images, labels), or a ``Dataset`` or ``DataLoader`` of such pairs.
        sigma: standard deviation of the noise, for pixels in [0, 1].
        samples: noisy copies that certify an image's radius.
        selection: other noisy copies, which select its class before.
        alpha: probability that an image's certificate is wrong.
        seed: the noise follows from it and the images' ids; it differs between GPU and CPU.
        skip: take every ``skip``-th image.
        n: number of these images; None: all.
        first: the first ``n``, also of rows that are in the order of their classes (`Data.limit`).
        batch_size: noisy copies in a pass; it changes the result by rounding at most.
        run: folder for the record; an interrupted run resumes from it, also with another number of processes.
        progress: shows how many images are done.

    Raises:
        ModelError: the model does not behave as a classifier, or is not deterministic.
        DataError: the images or labels do not fit.
        ConfigError: sigma, alpha or skip out of range, or too few samples to certify anything.
    """
    given: dict[str, Any] = {"model": "", "skip": skip, "n": n, "batch_size": batch_size, "sigma": sigma}
    given |= {"samples": samples, "selection": selection, "alpha": alpha, "seed": seed}
    config = validate(SmoothedCertification, given, "certify_smoothed")
    subject = Subject.of(model, data, n, first=first, skip=skip, only_decisions=True)
    result = smoothed_subject(subject, config, run=run, progress=progress)
    assert isinstance(result, SmoothingResult)  # no shard is named
    return result


@distributed.together()
@own_modes()
def smoothed_subject(
    subject: Subject,
    config: SmoothedCertification,
    *,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> SmoothingResult | ShardResult:
    """As `certify_smoothed`, of a model and images that were inspected; those of the configuration, which has
    a sigma, are ignored. Of a shard (``config.shard``) its images are certified."""
    if distributed.rank():
        progress = SILENT
    model, images = subject.model, subject.images
    assert config.sigma is not None
    config.refuse(len(images))
    smoothed = SmoothedClassifier(
        model, config.sigma, alpha=config.alpha, seed=config.seed, batch_size=config.batch_size
    )
    refuse_too_few(config.samples, config.alpha, smoothed.sigma)
    if len(set(distributed.gather(tuple(subject.inputs.values())))) > 1:
        raise ConfigError(
            "the processes have different models or images; call certify_smoothed with the same in all"
        )
    facts = config.model_dump(include={"selection", "samples", "alpha", "seed"})
    if run is not None:
        noise = (smoothed.sigma, *facts.values(), device_of(model).type)
        run.begin_with(**subject.beginning, **{"noise (and where it is drawn)": noise})
    with evaluation_mode(model):
        verdicts = _certified(smoothed, images, config, run, progress)
        if config.shard is not None:
            return ShardResult.of(config, len(images), verdicts, subject.about())
        bare = int((logits_of(model, images).argmax(1) == images.labels).sum())
    return SmoothingResult.of(
        verdicts, sigma=smoothed.sigma, skip=config.skip, bare_correct=bare, **facts, **subject.about()
    )


def _certified(
    smoothed: SmoothedClassifier,
    images: Data,
    config: SmoothedCertification,
    run: RunFolder | None,
    progress: Progress,
) -> tuple[SmoothedVerdict, ...]:
    """A verdict for each image of the shard, in the order of the data."""
    device, ids = device_of(smoothed), images.ids.tolist()
    folder, parts = (None, ()) if run is None else (run.path, run.parts)
    with Record[int, SmoothedVerdict](
        folder, "smoothed", 1, SmoothedVerdict, ids, parts=parts, progress=progress
    ) as record:
        record.take(ids)
        missing = [row for row in config.mine(range(len(ids))) if ids[row] not in record.entries]
        samples, mine = config.samples, missing[distributed.rank() :: distributed.world()]
        earlier = len(config.mine(ids)) - len(missing)
        if earlier:
            progress.say(f"{earlier} of {len(config.mine(ids))} images were certified earlier")
        radii = right = 0.0
        name = "smoothing" if distributed.world() == 1 else f"smoothing, 1 of {distributed.world()} shares"
        with progress.task(name, len(mine), unit="image") as task:
            for done, row in enumerate(mine, start=1):
                x, label = images.batch(torch.tensor([row]), device)
                found = smoothed.certify_one(
                    x[0], ids[row], config.selection, samples, lambda votes: task.underway(votes / samples)
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
                task.advance(1, accuracy=Share(right / done), average_radius=radii / done)
        record.finish()
        return tuple(record.entries[sample] for sample in config.mine(ids))
