"""Natural adversarial examples: search around the latent vector of an image, in rings of growing radius.

Zhao, Dua and Singh, "Generating Natural Adversarial Examples", ICLR 2018, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.attacks.engine.oracle import query
from advkit.core import rng
from advkit.core.progress import SILENT, Progress
from advkit.gan.sample import draw, of_known_prior
from advkit.models.model import Model, evaluation_mode
from advkit.models.network import Generator
from advkit.trained_attacks.latent.settings import NaturalSettings

DRAWN = 1000
"""Latent vectors for the estimate of the prior's size."""


@dataclass(frozen=True)
class NaturalExamples:
    """The results of the search around N latent vectors, on the CPU."""

    found: Tensor
    """(N,) bool: a misclassified image was found."""
    latent: Tensor
    """(N, latent_dim): the nearest one; the start where none was found."""
    images: Tensor
    """(N, C, H, W): its image."""
    said: Tensor
    """(N,) its predicted class."""
    distance: Tensor
    """(N,) from the start, in units of the mean distance of a sample from the prior's mean."""
    queries: Tensor
    """(N,) int64: queries to the classifier."""


def extent(generator: Generator, seed: int) -> float:
    """Mean distance of a sample of the prior from its mean."""
    device = next(generator.parameters()).device
    z = generator.draw(rng.keys(seed, "extent", torch.arange(DRAWN, device=device)))
    return float((z - z.mean(0)).norm(dim=1).mean())


@torch.no_grad()
def search_latent(
    model: Model,
    generator: Model,
    latent: Tensor,
    labels: Tensor,
    config: NaturalSettings,
    *,
    ids: Tensor,
    progress: Progress = SILENT,
) -> NaturalExamples:
    """For each latent vector, the nearest sampled one whose image is misclassified.

    Args:
        model: images in [0, 1] to logits, on any device; its mode is restored.
        generator: on the same device.
        latent: (N, latent_dim) of images.
        labels: (N,) their classes; a conditional generator gets them.
        ids: (N,) int64 ids of the images, which determine random numbers.
    """
    network = of_known_prior(generator)
    device = next(network.parameters()).device
    scale, (n, d) = extent(network, config.seed), latent.shape
    best, distance = latent.clone(), torch.zeros(n)
    found, queries = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64)
    at_once = max(1, config.batch_size // config.samples)
    width = config.radius / config.rings
    with (
        evaluation_mode(model),
        evaluation_mode(generator),
        progress.task("searching latent space", config.rings * n, unit="ring") as task,
    ):
        for ring in range(config.rings):
            for part in (~found).nonzero()[:, 0].split(at_once):
                key = rng.keys(config.seed, "natural", ids[part].to(device), ring)
                direction = rng.normal(key, (config.samples, d))
                far = width * (ring + rng.uniform(key + 1, (config.samples,)))
                z = latent[part].to(device)[:, None] + scale * far[..., None] * torch.nn.functional.normalize(
                    direction, dim=2
                )
                label = labels[part].to(device)[:, None].expand(-1, config.samples)
                x = generator(z.flatten(0, 1), *network.asked(label.flatten()))
                predicted = query(model, x).argmax(1).view(len(part), -1)
                nearest, place = torch.where(predicted != label, far, torch.inf).min(1)
                queries[part] += config.samples
                hit = nearest.isfinite().cpu()
                rows = part[hit]
                found[rows], distance[rows] = True, nearest.cpu()[hit]
                best[rows] = z[torch.arange(len(part), device=device), place].cpu()[hit]
            task.advance(n, found=float(found.float().mean()))
            if bool(found.all()):
                break
        images = draw(generator, best, *network.asked(labels), batch_size=config.batch_size)
        parts = images.split(config.batch_size)
        classes = torch.cat([query(model, x.to(device)).argmax(1).cpu() for x in parts])
    found &= classes != labels  # for exactly the returned image
    return NaturalExamples(found, best, images, classes, distance, queries)
