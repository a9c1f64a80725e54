"""A Gaussian for each class as a generator: nothing is trained, `advkit.gan.gaussian` fits it."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from advkit.models.card import Shape
from advkit.models.labels import need_labels
from advkit.models.network import Generator, architecture


@architecture(
    "gaussian-generator",
    role="generator",
    summary="a Gaussian of the pixels for each class, clipped to [0, 1]: the baseline of generated data",
    source="Gowal et al., Improving Robustness using Generated Data, NeurIPS 2021",
)
class GaussianGenerator(Generator):
    """mean + factor z, where factor times its transpose is the class's covariance.

    Without classes there is one Gaussian. Fresh ones are grey, with noise on it.
    """

    class Config(Generator.Config):
        latent_dim: int = Field(64, ge=1)
        """Rank of the covariances, at most."""

    config: Config

    def __init__(self, config: Config, *, shape: Shape, classes: int | None = None) -> None:
        super().__init__(config, shape=shape, classes=classes)
        size = shape[0] * shape[1] * shape[2]
        self.mean = nn.Parameter(torch.full((classes or 1, size), 0.5))
        self.factor = nn.Parameter(torch.zeros(classes or 1, size, self.latent_dim))
        nn.init.normal_(self.factor, 0, 0.2 * self.latent_dim**-0.5)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images in [0, 1] of latent vectors (N, latent_dim) and, where there are any, classes (N,).

        Raises:
            DataError: labels that are missing or not of these classes.
        """
        which = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        if self.classes is not None:
            which = need_labels(labels, len(z), self.classes)
        # One product for all classes: a factor for each row would not fit into memory.
        offsets = (z @ self.factor.flatten(0, 1).T).view(len(z), len(self.mean), -1)
        rows = torch.arange(len(z), device=z.device)
        return (self.mean[which] + offsets[rows, which]).clamp(0, 1).view(-1, *self.shape)
