"""Which moves break a classifier: every image is tried until one does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advkit.attacks.engine.oracle import query
from advkit.core.warp import Padding, turn_and_shift


@dataclass(frozen=True)
class Fallen:
    """How some images came out of a list of moves."""

    first: Tensor
    """(N,) place in the list of the first move that breaks the image; -1 where none does."""
    forwards: int


@torch.no_grad()
def first_fall(
    model: nn.Module, x: Tensor, label: Tensor, moves: Tensor, padding: Padding, batch_size: int
) -> Fallen:
    """Tries the moves in turn; an image that has fallen is tried no more, and the batch stays full.

    Args:
        model: in eval mode.
        x: (N, C, H, W) images.
        label: (N,) their classes.
        moves: (N, K, 3) for each image.
        padding: what fills the gaps.
        batch_size: images at work at once.
    """
    first = torch.full_like(label, -1)
    standing = torch.arange(len(x), device=x.device)
    count, done, forwards = moves.shape[1], 0, 0
    while done < count and len(standing):
        at_once = min(count - done, max(1, batch_size // len(standing)))
        tried = moves[standing, done : done + at_once].reshape(-1, 3)
        turned = move(x[standing].repeat_interleave(at_once, 0), tried, padding)
        wrong = is_wrong(model, turned, label[standing].repeat_interleave(at_once)).view(-1, at_once)
        fell = wrong.any(1)
        first[standing[fell]] = done + wrong[fell].int().argmax(1)
        standing = standing[~fell]
        done += at_once
        forwards += len(turned)
    return Fallen(first, forwards)


def move(x: Tensor, moves: Tensor, padding: Padding) -> Tensor:
    """(N, C, H, W) the images, each moved by its (N, 3)."""
    angle, across, down = moves.unbind(1)
    return turn_and_shift(x, angle, across, down, padding)


@torch.no_grad()
def is_wrong(model: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    """(N,) bool: misclassified; NaN does not count."""
    logits = query(model, x)
    return (logits.argmax(1) != label) & ~logits.isnan().any(1)
