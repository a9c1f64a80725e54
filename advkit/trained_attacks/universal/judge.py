"""Evaluates a universal change on test images, and untrained changes for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from advkit.attacks.engine.oracle import query
from advkit.attacks.perturb import device_of, logits_of
from advkit.core import images, rng
from advkit.core.errors import DataError
from advkit.core.levels import as_image
from advkit.core.progress import Task
from advkit.core.stats import clopper_pearson
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.trained_attacks.universal.change import Patch, Perturbation, Place, paste
from advkit.trained_attacks.universal.result import Hits, PatchJudged, PerturbationJudged, PlaceMap

SCALES = 5
"""Sizes at which a patch is evaluated."""
MAPS = 3
"""Sizes with a map of positions."""
PLACES = 7
"""Positions of a map, across and down."""
MAPPED = 200
"""Images per position of a map at most."""
BATCH = 500
"""Images of a pass."""


def random_subset(data: Data, n: int, seed: int) -> Data:
    """``n`` images sampled at random, in the order of the data; all of them if there are no more."""
    if n >= len(data):
        return data
    return data.take(rng.permutation(seed, "judged", len(data))[:n].sort().values)


def rounded_to_8_bits(patch: Tensor) -> Tensor:
    """The patch in 8-bit levels, as it is saved, evaluated and printed."""
    return as_image(images.to_uint8(patch)).to(patch.device)


@torch.no_grad()
def predicted_classes(model: nn.Module, x: Tensor) -> Tensor:
    """(R,) classes, on the CPU; -1 where a logit is NaN."""
    logits = query(model, x)
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1)).cpu()


class PatchJudge:
    """Applies patches to the images that one classifier classifies correctly.

    Args:
        model: the classifier, in eval mode.
        kind: the patch and its positions.

    Raises:
        DataError: no image is left for evaluation.
    """

    def __init__(self, model: Model, test: Data, kind: Patch, target: int, seed: int) -> None:
        self.model, self.kind, self.target, self.seed = model, kind, target, seed
        self.device = device_of(model)
        correct = logits_of(model, test, BATCH).argmax(1) == test.labels
        self.clean_correct = int(correct.sum())
        index = (correct & (test.labels != target)).nonzero()[:, 0]
        if len(index) == 0:
            raise DataError(
                f"none of the {len(test)} test images is of another class than the target and classified "
                "correctly without a patch; choose a better classifier or more images"
            )
        self.data = test.take(index)

    def hits(self, patch: Tensor, place: Place) -> int:
        """Number of the first ``len(place)`` images that are classified as the target."""
        count = 0
        for part in torch.arange(len(place)).split(BATCH):
            x, _ = self.data.batch(part, self.device)
            patched = paste(patch, x, place.take(part.to(self.device)), self.kind.settings.form)
            count += int((predicted_classes(self.model, patched) == self.target).sum())
        return count

    def drawn(self, scale: tuple[float, float], stream: str) -> Place:
        """A position for every image, by its id."""
        keys = rng.keys(self.seed, stream, self.data.ids.to(self.device))
        return Place.drawn(keys, scale, self.kind.settings.rotation)

    def compared(self, patches: dict[str, Tensor], scale: tuple[float, float]) -> Hits:
        """All patches at the same positions."""
        place = self.drawn(scale, f"judge {scale}")
        return Hits(scale=scale, **{name: self.hits(patch, place) for name, patch in patches.items()})

    def mapped(self, patch: Tensor, scale: float) -> PlaceMap:
        """One patch at every position of a grid, with the rotations of training."""
        n = min(MAPPED, len(self.data))
        at = torch.linspace(0, 1, PLACES, device=self.device)
        place = self.drawn((scale, scale), "map").take(torch.arange(n, device=self.device))
        rows = []
        for down in at:
            place.down = down.expand(n)
            row = []
            for across in at:
                place.across = across.expand(n)
                row.append(self.hits(patch, place))
            rows.append(tuple(row))
        return PlaceMap(scale=scale, n=n, hits=tuple(rows))


def judge_patch(
    model: Model,
    test: Data,
    kind: Patch,
    patches: dict[str, Tensor],
    *,
    target: int,
    seed: int,
    task: Task,
    **facts: Any,
) -> PatchJudged:
    """One classifier under the patch and the patches for comparison.

    Args:
        model: the classifier, in eval mode.
        kind: the patch and its positions.
        patches: ``patch``, ``noise``, ``grey`` and ``real``, (1, C, h, w) each.
        task: advanced for each of `judgements`.
    """
    judge = PatchJudge(model, test, kind, target, seed)
    patches = {name: patch.to(judge.device) for name, patch in patches.items()}
    low, high = kind.settings.scale
    scales = [low] if low == high else torch.linspace(low, high, SCALES, dtype=torch.float64).tolist()
    anywhere = judge.compared(patches, (low, high))
    task.advance(1)
    by_scale, by_place = [], []
    for scale in scales:
        by_scale.append(judge.compared(patches, (scale, scale)))
        task.advance(1)
    for scale in scales[:: max(1, (SCALES - 1) // (MAPS - 1))]:
        by_place.append(judge.mapped(patches["patch"], scale))
        task.advance(1)
    n = len(judge.data)
    return PatchJudged(
        **facts,
        model_hash=model.hash,
        n=len(test),
        clean_correct=judge.clean_correct,
        judged=n,
        anywhere=anywhere,
        by_scale=tuple(by_scale),
        by_place=tuple(by_place),
        rate=anywhere.patch / n,
        interval=clopper_pearson(anywhere.patch, n),
    )


def judgements(kind: Patch) -> int:
    """Number of progress steps of `judge_patch`."""
    return sum(_parts(kind))


def passes(kind: Patch, n: int) -> int:
    """Largest number of forward passes of `judge_patch`, for ``n`` test images."""
    anywhere, scales, maps = _parts(kind)
    return n + 4 * n * (anywhere + scales) + maps * PLACES**2 * min(MAPPED, n)


def _parts(kind: Patch) -> tuple[int, int, int]:
    low, high = kind.settings.scale
    return (1, 1, 1) if low == high else (1, SCALES, MAPS)


def judge_perturbation(
    model: Model,
    test: Data,
    kind: Perturbation,
    change: Tensor,
    *,
    target: int | None,
    seed: int,
    **facts: Any,
) -> PerturbationJudged:
    """One classifier under the perturbation, and under a random one of the same size.

    Args:
        model: the classifier, in eval mode.
        kind: the norm and the budget; an image outside it counts as not fooled.
        change: (1, C, H, W) the perturbation.
    """
    device = device_of(model)
    random = random_like(kind, seed).to(device)
    answers: dict[str, list[Tensor]] = {"clean": [], "changed": [], "random": []}
    for part in torch.arange(len(test)).split(BATCH):
        x, _ = test.batch(part, device)
        answers["clean"].append(predicted_classes(model, x))
        for key, what in (("changed", change), ("random", random)):
            moved = kind.apply(what, x, part.to(device))
            inside = kind.threat.contains(moved, x).cpu()
            answer = predicted_classes(model, moved)
            answers[key].append(torch.where(inside & (answer >= 0), answer, answers["clean"][-1]))
    clean, changed, by_random = (torch.cat(parts) for parts in answers.values())
    fooled = changed != clean
    judged = clean != target if target is not None else torch.ones_like(fooled)
    hits = judged & ((changed == target) if target is not None else fooled)
    return PerturbationJudged(
        **facts,
        model_hash=model.hash,
        n=len(test),
        clean_correct=int((clean == test.labels).sum()),
        correct=int((changed == test.labels).sum()),
        fooled=int(fooled.sum()),
        fooled_by_random=int((by_random != clean).sum()),
        judged=int(judged.sum()),
        hits=int(hits.sum()),
        becomes=frequencies(changed[fooled], test.class_names),
        rate=int(hits.sum()) / max(1, int(judged.sum())),
        interval=clopper_pearson(int(hits.sum()), int(judged.sum())),
    )


def frequencies(predicted: Tensor, class_names: Sequence[str]) -> dict[str, int]:
    """How often each class is among ``predicted`` (N,), the most frequent first."""
    labels, counts = predicted.unique(return_counts=True)
    names = dict(enumerate(class_names))
    pairs = sorted(zip(labels.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])
    return {names.get(label, str(label)): count for label, count in pairs}


def random_like(kind: Perturbation, seed: int) -> Tensor:
    """(1, C, H, W) a random perturbation that uses the whole budget, on the CPU."""
    direction = rng.normal(
        rng.keys(seed, "random perturbation", torch.zeros(1, dtype=torch.int64)), kind.shape
    )
    return kind.threat.eps * kind.threat.ascent(direction)
