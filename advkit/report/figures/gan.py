"""Pictures of a trained generator: the way from one sample to another, and of its training as a film."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from advkit.core import files, images
from advkit.gan.sample import draw
from advkit.models.network import Generator

FRAMES = 60
"""Pictures of a film at most; of longer trainings, some that are evenly spread."""
SECONDS = 6.0
"""How long a film is, its last picture left out."""
WAYS, STOPS = 8, 12
"""Rows of the grid of ways, and images along each."""


def write_film(path: Path, samples: Path) -> None:
    """A GIF of the grids in ``samples``, in the order of their names; the last one stays for two seconds."""
    grids = sorted(samples.glob("step-*.png"))
    chosen = [grids[round(i)] for i in torch.linspace(0, len(grids) - 1, min(FRAMES, len(grids))).tolist()]
    pictures = [Image.open(grid).convert("P") for grid in chosen]
    shown = max(20, round(1000 * SECONDS / len(pictures)))
    with files.atomic(path) as temporary:
        pictures[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=[shown] * (len(pictures) - 1) + [2000],
            loop=0,
        )


def write_ways(path: Path, generator: Generator, ends: Tensor, *labels: Tensor) -> None:
    """A grid in which each row goes from one latent vector to another.

    The way is straight in direction and in length separately, so that it does not pass through vectors that
    are shorter than the prior's (White 2016, "Sampling Generative Networks").

    Args:
        ends: (2 * WAYS, latent_dim) latent vectors.
        labels: (WAYS,) classes, one for each row, for a conditional generator.
    """
    first, last = ends[:WAYS, None], ends[WAYS:, None]
    share = torch.linspace(0, 1, STOPS, device=ends.device).view(1, -1, 1)
    mixed = first.lerp(last, share)
    length = first.norm(dim=2, keepdim=True).lerp(last.norm(dim=2, keepdim=True), share)
    latent = (mixed / mixed.norm(dim=2, keepdim=True).clamp_min(1e-12) * length).flatten(0, 1)
    rows = (label.repeat_interleave(STOPS) for label in labels)
    images.write_grid(path, draw(generator, latent, *rows), STOPS)
