"""Adversarial examples of the bare classifier: non-adaptive attacks on a defence, and training data of a
detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advkit.attacks.engine.outcome import Found
from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import logits_of, make, searching
from advkit.core import files
from advkit.core.config import Precision
from advkit.core.errors import DataError
from advkit.core.progress import SILENT, Progress
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.defences.settings import Judged
from advkit.evaluation.evaluate import plan
from advkit.models.model import Model, evaluation_mode

CLASSES = ("clean", "adversarial")
"""Class names, in the order of a detector's outputs."""


@dataclass(frozen=True)
class Fooled:
    """Adversarial examples that an attack found on a bare classifier."""

    rows: Tensor
    """(A,) int64: the original images' rows in the data."""
    images: Tensor
    """(A, C, H, W) float32: the adversarial images."""

    def __len__(self) -> int:
        return len(self.rows)


def fooled(
    model: Model,
    data: Data,
    threat: Threat,
    attack: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    precision: Precision = "auto",
    progress: Progress = SILENT,
) -> Fooled:
    """The first adversarial example that an attack finds for each image that the classifier gets right.

    Args:
        precision: arithmetic of the search; successes are confirmed in the classifier's own.
    """
    rows: list[int] = []
    images: list[Tensor] = []
    with evaluation_mode(model):
        clean = logits_of(model, data)
        right = (clean.argmax(1) == data.labels).nonzero()[:, 0]
        with progress.task(f"attacking with {attack}", len(right), unit="image") as task:

            def note(found: Found) -> None:
                if found.broken:
                    rows.append(found.index)
                    images.append(found.x.cpu())
                task.advance(1, fooled=len(rows))

            made = make(attack, threat, parameters)
            search = searching(model, data, made, name=attack, seed=seed, precision=precision, clean=clean)
            search.run(right, note)
    order = sorted(range(len(rows)), key=rows.__getitem__)
    turned = torch.stack([images[at] for at in order]) if order else torch.empty(0, *data.shape)
    return Fooled(torch.tensor(rows, dtype=torch.int64)[order], turned)


def attacks_of(config: Judged, classifier: Model, data: Data, threat: Threat) -> tuple[Stage, ...]:
    """The requested attacks, ensembles as their stages; every mistake is reported before the work begins.

    Raises:
        ConfigError: unknown attacks or parameters, or an attack that does not support the norm or the number
            of classes.
    """
    return plan(config.attack, threat, classifier.card.classes or data.classes, config.parameters)


def non_adaptive(
    attacks: Sequence[Stage],
    classifier: Model,
    data: Data,
    threat: Threat,
    config: Judged,
    progress: Progress,
) -> list[Fooled]:
    """The adversarial examples that each attack finds on the bare classifier."""
    return [
        fooled(
            classifier,
            data,
            threat,
            stage.attack,
            stage.parameters,
            seed=config.seed,
            precision=config.precision,
            progress=progress,
        )
        for stage in attacks
    ]


def left(right: Tensor, found: Sequence[Fooled]) -> Tensor:
    """(N,) bool: the images that are ``right`` and that no attack has broken."""
    robust = right.clone()
    for each in found:
        robust[each.rows] = False
    return robust


def examples(
    model: Model,
    data: Data,
    threat: Threat,
    attacks: Sequence[str],
    parameters: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    file: Path | None = None,
    progress: Progress = SILENT,
) -> Data:
    """All clean images (class 0) and the adversarial examples of the attacks (class 1), as training data.

    Args:
        attacks: registered attacks, each run on every image.
        file: an .npz where the adversarial images are kept; if it exists, they are read from it.

    Raises:
        DataError: no attack succeeded on any image.
    """
    if file is not None and file.exists():
        turned = torch.from_numpy(files.Arrays(file)["x"])
        progress.say(f"{len(turned):,} adversarial images were made by an earlier process")
    else:
        found = [
            fooled(model, data, threat, name, parameters.get(name), seed=seed, progress=progress)
            for name in attacks
        ]
        turned = torch.cat([each.images for each in found])
        if len(turned) == 0:
            raise DataError(
                f"{' and '.join(attacks)} found no adversarial example for {len(data):,} images within "
                f"{threat}, so there is nothing to detect; allow a larger --eps, or name a stronger --attack"
            )
        if file is not None:
            rows = torch.cat([each.rows for each in found])
            place = torch.cat([torch.full((len(each),), at) for at, each in enumerate(found)])
            ids, labels = data.ids[rows], data.labels[rows]
            arrays = {"x": turned, "id": ids, "y": labels, "attack": place}
            files.write_arrays(file, **{name: array.numpy() for name, array in arrays.items()})
    clean, _ = data.batch(torch.arange(len(data)))
    classes = torch.cat([torch.zeros(len(clean)), torch.ones(len(turned))]).long()
    images = torch.cat([clean, turned])
    return Data(data.name, data.split, images, classes, CLASSES, torch.arange(len(images)))
