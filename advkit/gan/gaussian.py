"""The control of generated data: a Gaussian for each class, fitted to its images in closed form.

A generator's extra images are compared with these as a baseline (Gowal et al., "Improving
Robustness using Generated Data", NeurIPS 2021): where these help as much, no generator was needed.
"""

from __future__ import annotations

import torch

from advkit import __version__
from advkit.core.errors import DataError
from advkit.core.runs import now
from advkit.data.data import Data
from advkit.models.architectures.gaussian import GaussianGenerator
from advkit.models.card import ModelCard
from advkit.models.model import Model

LEAST = 2
"""Images of a class without which there is no covariance."""


def gaussians(data: Data) -> Model:
    """A conditional generator of ``data``'s classes: mean and full sample covariance of each class's pixels.

    The covariance is kept as a factor by the singular values of the centred images, so its rank is that which
    the images have.

    Args:
        data: images, two of each class at least.

    Raises:
        DataError: fewer.
    """
    counts = torch.bincount(data.labels, minlength=data.classes)
    if int(counts.min()) < LEAST:
        few = data.class_names[int(counts.argmin())]
        raise DataError(
            f"{data.name} ({data.split}) has {int(counts.min())} images of class {few}, too few for a "
            f"covariance; give {LEAST} at least"
        )
    size = data.shape[0] * data.shape[1] * data.shape[2]
    config = {"latent_dim": min(int(counts.max()), size)}
    network = GaussianGenerator(
        GaussianGenerator.Config.model_validate(config), shape=data.shape, classes=data.classes
    )
    network.requires_grad_(False)
    network.factor.zero_()
    for label in range(data.classes):
        x, _ = data.batch((data.labels == label).nonzero()[:, 0])
        rows = x.flatten(1).double()
        mean = rows.mean(0)
        _, spread, directions = torch.linalg.svd(rows - mean, full_matrices=False)
        factor = directions.T * (spread / (len(rows) - 1) ** 0.5)
        network.mean[label] = mean.float()
        network.factor[label, :, : factor.shape[1]] = factor.float()
    card = ModelCard(
        role="generator",
        architecture="gaussian-generator",
        config=config,
        shape=data.shape,
        classes=data.classes,
        labels=data.class_names,
        data=data.facts,
        training={"command": "gan-sample", "gaussian": data.name},
        created=now(),
        advkit=__version__,
    )
    return Model(network, card).eval()
