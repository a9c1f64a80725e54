"""Noise: an independent random number for every value."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.core import rng
from advkit.data.corruption import Draw, corruption

_LIKELY = 1e-12
"""Probability of larger Poisson numbers than are looked up."""


@corruption(
    "gaussian-noise",
    summary="normally distributed noise, as in poor light",
    large=(0.08, 0.12, 0.18, 0.26, 0.38),
    small=(0.04, 0.06, 0.08, 0.09, 0.10),
)
def gaussian_noise(x: Tensor, sigma: float, draw: Draw) -> Tensor:
    """Adds noise of the standard deviation ``sigma``."""
    return x + sigma * rng.normal(draw.key, x.shape[1:])


@corruption(
    "speckle-noise",
    summary="normally distributed noise in proportion to the value",
    large=(0.15, 0.2, 0.35, 0.45, 0.6),
    small=(0.06, 0.1, 0.12, 0.16, 0.2),
)
def speckle_noise(x: Tensor, sigma: float, draw: Draw) -> Tensor:
    """Adds noise of the standard deviation ``sigma`` times the value."""
    return x + x * sigma * rng.normal(draw.key, x.shape[1:])


@corruption(
    "impulse-noise",
    summary="values that become black or white, as from dead pixels",
    large=(0.03, 0.06, 0.09, 0.17, 0.27),
    small=(0.01, 0.02, 0.03, 0.05, 0.07),
)
def impulse_noise(x: Tensor, share: float, draw: Draw) -> Tensor:
    """A share of the values becomes 0 or 1, half of them each."""
    drawn = rng.uniform(draw.key, x.shape[1:])
    return torch.where(drawn < share, (drawn < share / 2).float(), x)


@corruption(
    "shot-noise",
    summary="Poisson noise, as of light's particles",
    large=(60, 25, 12, 5, 3),
    small=(500, 250, 100, 75, 50),
)
def shot_noise(x: Tensor, photons: int, draw: Draw) -> Tensor:
    """Each value is a number drawn from the Poisson distribution of mean ``photons`` times it."""
    from scipy.stats import poisson

    most = int(poisson.isf(_LIKELY, photons)) + 1
    means = photons * torch.arange(256, dtype=torch.float64) / 255
    below = torch.from_numpy(poisson.cdf(torch.arange(most).numpy(), means.numpy()[:, None]))
    # One search serves all levels: level L's distribution function lies between L and L + 1.
    level = (x * 255).round().double()
    table = (below + torch.arange(256)[:, None]).flatten()
    places = torch.searchsorted(table, level + rng.uniform(draw.key, x.shape[1:]).double(), right=True)
    return (places - level.long() * most).float() / photons
