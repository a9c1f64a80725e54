"""Images from a trained generator, each a function of (seed, its number)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from advkit.core import images, rng
from advkit.core.errors import DataError, ModelError
from advkit.core.progress import SILENT, Progress
from advkit.models.model import Model, evaluation_mode
from advkit.models.network import Generator

BATCH = 100
"""Images a pass, always as many: other batch sizes may take other kernels, which round otherwise."""


@torch.no_grad()
def draw(generator: nn.Module, latent: Tensor, *labels: Tensor, batch_size: int = 500) -> Tensor:
    """Images (N, C, H, W) in [0, 1] of latent vectors (and of classes (N,), if it is asked for them), with
    the generator in eval mode and left as found; on the CPU."""
    device = next(generator.parameters()).device
    parts = zip(*(given.split(batch_size) for given in (latent, *labels)), strict=True)
    with evaluation_mode(generator):
        return torch.cat([generator(*(one.to(device) for one in part)).float().cpu() for part in parts])


def sample(
    model: Model,
    n: int,
    seed: int = 0,
    labels: Tensor | None = None,
    *,
    progress: Progress = SILENT,
) -> tuple[Tensor, Tensor]:
    """The first ``n`` images of a seed: they are the same however many are asked for.

    Args:
        model: a generator, on any device; left in the mode that it is in.
        labels: (n,) int64 classes to draw, of a conditional generator; by default its classes in turn.

    Returns:
        Images (n, C, H, W) uint8 and their latent vectors (n, latent_dim) float32, on the CPU.

    Raises:
        ModelError: it does not say how its latent vectors are drawn, or has no classes that could be asked
            for.
        DataError: labels that are not n of its classes.
    """
    generator = of_known_prior(model)
    if labels is not None:
        _refuse_bad_labels(labels, n, generator)
    drawn, latents = [], []
    with progress.task("drawing images", n, unit="image") as task:
        for first in range(0, n, BATCH):
            asked = in_turn(generator, first) if labels is None else labels[first : first + BATCH]
            images, latent = piece(model, seed, first, asked)
            drawn.append(images)
            latents.append(latent)
            task.advance(min(BATCH, n - first))
    return torch.cat(drawn)[:n], torch.cat(latents)[:n]


def of_known_prior(model: Model) -> Generator:
    """The network of ``model``.

    Raises:
        ModelError: it does not say how its latent vectors are drawn.
    """
    generator = model.network
    if not isinstance(generator, Generator):
        raise ModelError(
            f"{model.card.architecture} is not one of advkit's generators, so the distribution of its latent "
            "vectors is unknown; derive it from advkit.models.network.Generator"
        )
    return generator


def in_turn(generator: Generator, first: int) -> Tensor | None:
    """Classes of the `BATCH` images from number ``first`` on: each in turn; None where there are none."""
    if generator.classes is None:
        return None
    return torch.arange(first, first + BATCH) % generator.classes


@torch.no_grad()
def piece(model: Model, seed: int, first: int, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """The `BATCH` images of a seed from number ``first`` on, uint8, and their latent vectors, on the CPU.

    Args:
        first: number of the first one, a multiple of `BATCH`.
        labels: (up to BATCH,) classes to draw, of a conditional generator; else None.
    """
    generator = of_known_prior(model)
    device = next(generator.parameters()).device
    numbers = torch.arange(first, first + BATCH, device=device)
    latent = generator.draw(rng.keys(seed, "sample", numbers))
    asked = () if labels is None else (pad(labels, (0, BATCH - len(labels))).to(device),)
    with evaluation_mode(model):
        drawn = images.to_uint8(model(latent, *asked))
    return drawn.cpu(), latent.cpu()


def _refuse_bad_labels(labels: Tensor, n: int, generator: Generator) -> None:
    if generator.classes is None:
        raise ModelError(
            "the generator is unconditional, so no class can be asked for; leave the labels out, or train a "
            "conditional one"
        )
    if labels.shape != (n,) or labels.min() < 0 or labels.max() >= generator.classes:
        raise DataError(
            f"labels of shape {tuple(labels.shape)} from {int(labels.min())} to {int(labels.max())} were "
            f"given for {n} images of {generator.classes} classes; "
            f"give one of 0 to {generator.classes - 1} an image"
        )
