"""Adversarial examples to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from advkit.data.data import Data
from advkit.evaluation.result import EvaluationResult, Verdict
from advkit.report import plots

SHOWN = 8


def nearest(result: EvaluationResult) -> list[Verdict]:
    """The broken images whose adversarial image is nearest to the original, at most eight."""
    broken = [verdict for verdict in result.verdicts if verdict.status == "broken"]
    return sorted(broken, key=lambda verdict: (verdict.distance or 0.0, verdict.id))[:SHOWN]


def write_examples(
    path: Path, shown: Sequence[Verdict], images: Data, adversarial: Tensor, said: Sequence[int]
) -> None:
    """A PNG with original, adversarial image and their difference, one column an example.

    Args:
        path: where.
        shown: the examples.
        images: what was attacked.
        adversarial: (len(shown), C, H, W) their adversarial images.
        said: what the model calls each of them.
    """
    places = {sample: index for index, sample in enumerate(images.ids.tolist())}
    original, _ = images.batch(torch.tensor([places[verdict.id] for verdict in shown]))
    change = adversarial - original
    largest = float(change.abs().max()) or 1.0
    figure, axes = plots.figure((1.25 * len(shown) + 0.9, 4.1), 3, len(shown), squeeze=False)
    rows = (original, adversarial, (0.5 + change / (2 * largest)).clamp(0, 1))
    for row, (name, pictures) in enumerate(
        zip(("original", "adversarial", f"change / {largest:.3g}"), rows, strict=True)
    ):
        for column, picture in enumerate(pictures):
            axis = axes[row, column]
            axis.imshow(picture.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(images.class_names[shown[column].label], fontsize=10)
            if row == 1:
                axis.set_title(f"→ {_name(images, said[column])}", fontsize=10, color="#b00020")
        axes[row, 0].set_ylabel(name, fontsize=10)
    plots.save(figure, path)


def _name(images: Data, label: int) -> str:
    return images.class_names[label] if label < len(images.class_names) else str(label)
