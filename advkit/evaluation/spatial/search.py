"""Search for the first transformation that breaks each image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advkit.attacks.engine.oracle import query
from advkit.core.warp import Padding, turn_and_shift


@dataclass(frozen=True)
class FirstSuccess:
    """The outcome of a list of transformations on some images."""

    first: Tensor
    """(N,) position in the list of the first transformation that breaks the image; -1 where none does."""
    tried: Tensor
    """(N,) transformations that were tried on the image."""


@torch.no_grad()
def first_success(
    model: nn.Module, x: Tensor, label: Tensor, moves: Tensor, padding: Padding, batch_size: int
) -> FirstSuccess:
    """Tries the transformations in order, and drops an image once one succeeds, so that batches stay full.

    Args:
        model: in eval mode.
        x: (N, C, H, W) images.
        label: (N,) their classes.
        moves: (N, K, 3) transformations of each image.
    """
    first, each = torch.full_like(label, -1), torch.zeros_like(label)
    unbroken = torch.arange(len(x), device=x.device)
    count, done = moves.shape[1], 0
    while done < count and len(unbroken):
        at_once = min(count - done, max(1, batch_size // len(unbroken)))
        tried = moves[unbroken, done : done + at_once].reshape(-1, 3)
        turned = move(x[unbroken].repeat_interleave(at_once, 0), tried, padding)
        wrong = is_wrong(model, turned, label[unbroken].repeat_interleave(at_once)).view(-1, at_once)
        broken = wrong.any(1)
        first[unbroken[broken]] = done + wrong[broken].int().argmax(1)
        each[unbroken] += at_once
        unbroken = unbroken[~broken]
        done += at_once
    return FirstSuccess(first, each)


def move(x: Tensor, moves: Tensor, padding: Padding) -> Tensor:
    """(N, C, H, W) the images, each transformed by its row of (N, 3)."""
    angle, across, down = moves.unbind(1)
    return turn_and_shift(x, angle, across, down, padding)


@torch.no_grad()
def is_wrong(model: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    """(N,) bool: misclassified; NaN does not count."""
    logits = query(model, x)
    return (logits.argmax(1) != label) & ~logits.isnan().any(1)
