"""Images from a trained generator, each a function of (seed, its number)."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit import images, rng
from advkit.errors import ModelError
from advkit.models.mode import evaluation_mode
from advkit.models.model import Model
from advkit.models.network import Generator
from advkit.progress import SILENT, Progress

BATCH = 100
"""Images a pass, always as many: other batch sizes may take other kernels, which round otherwise."""


@torch.no_grad()
def sample(model: Model, n: int, seed: int = 0, *, progress: Progress = SILENT) -> tuple[Tensor, Tensor]:
    """The first ``n`` images of a seed: they are the same however many are asked for.

    Args:
        model: a generator, on any device; left in the mode that it is in.
        n: how many.
        seed: which ones.
        progress: told how many are drawn.

    Returns:
        Images (n, C, H, W) uint8 and their latent vectors (n, latent_dim) float32, on the CPU.

    Raises:
        ModelError: it does not say how its latent vectors are drawn.
    """
    generator = model.network
    if not isinstance(generator, Generator):
        raise ModelError(
            f"{model.card.architecture} is not one of advkit's generators, so the distribution of its latent "
            "vectors is unknown; derive it from advkit.models.network.Generator"
        )
    device = next(generator.parameters()).device
    drawn, latents = [], []
    with evaluation_mode(model), progress.task("drawing images", n, unit="image") as task:
        for first in range(0, n, BATCH):
            numbers = torch.arange(first, first + BATCH, device=device)
            latent = generator.draw(rng.keys(seed, "sample", numbers))
            drawn.append(images.to_uint8(model(latent)).cpu())
            latents.append(latent.cpu())
            task.advance(min(BATCH, n - first))
    return torch.cat(drawn)[:n], torch.cat(latents)[:n]
