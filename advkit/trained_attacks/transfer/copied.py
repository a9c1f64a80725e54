"""Model extraction: queries, answers, training of the copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.core.config import StrictModel
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.reuse.classifier import untrained
from advkit.trained_attacks.transfer.queries import BlackBox, Queries, augmented, real_images
from advkit.trained_attacks.transfer.settings import SubstituteTraining
from advkit.training.loop import fit
from advkit.training.objective import Batch, Objective
from advkit.training.settings import Fitting
from advkit.training.trainer import Trained

FILE = "queries.npz"
"""In the run folder: queries and answers, so that none is repeated."""


class Distil(Objective):
    """Cross-entropy with the answers, indexed by the images' ids.

    Args:
        answers: (Q, K) probabilities.
    """

    needs_threat = False

    def __init__(self, answers: Tensor) -> None:
        super().__init__(StrictModel())
        self._answers = answers

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean over the batch, and the logits."""
        self._answers = self._answers.to(x.device)
        logits = model(x)
        return cross_entropy(logits, self._answers[batch.ids]), logits


def fresh(config: SubstituteTraining, data: Data) -> Model:
    """An untrained copy.

    Raises:
        ConfigError: unknown names or parameters, or an architecture that is not a classifier.
    """
    return untrained(config.copy_arch, config.architecture, data, config.seed, "--copy-arch")


def train_copy(
    copy: Model,
    queries: Queries,
    class_names: tuple[str, ...],
    config: Fitting,
    *,
    run: RunFolder | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
    name: str = "training the copy",
) -> Trained:
    """Trains ``copy``, in place, on the answers.

    Args:
        queries: with their answers.
        class_names: of the classes, in the order of the answers.
    """
    objective = Distil(queries.answers)
    data = queries.data(class_names)
    return fit(copy, config, data, objective=objective, run=run, device=device, progress=progress, name=name)


def gather(
    box: BlackBox,
    learn: Data,
    config: SubstituteTraining,
    generated: Callable[[int], Tensor] | None,
    *,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> Queries:
    """Queries the black box within its limit.

    Args:
        learn: real images; their labels are not used.
        generated: returns n images (n, C, H, W) uint8 of a generator.
        folder: of the stored answers; stored queries are not repeated.
    """
    first = max(1, box.limit // 2**config.jacobian)
    if folder is not None and (folder / FILE).exists():
        queries = Queries.load(folder / FILE)
        box.asked = len(queries)
        progress.say(f"{len(queries):,} answers from an earlier process are reused")
    else:
        share = round(first * config.generated_fraction) if generated is not None else 0
        parts = [(real_images(learn, first - share, config.seed), "real")]
        if generated is not None and share:
            parts.append((generated(share), "generated"))
        queries = _kept(Queries.collect(box, parts), folder)
    most = (len(queries) - queries.counts()["augmented"]) * 2**config.jacobian
    while len(queries) < most and box.left:
        before, more = len(queries), min(len(queries), box.left)
        name = f"training the copy on {before:,} answers"
        trained = train_copy(
            fresh(config, learn),
            queries,
            learn.class_names,
            config,
            device=device,
            progress=progress,
            name=name,
        )
        new = augmented(trained.model, queries, more, config.jacobian_step)
        queries = _kept(queries.joined(Queries.collect(box, [(new, "augmented")])), folder)
    progress.say(f"{box.asked:,} queries made ({box.limit:,} allowed)")
    return queries


def _kept(queries: Queries, folder: Path | None) -> Queries:
    if folder is not None:
        queries.save(folder / FILE)
    return queries
