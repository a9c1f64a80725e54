"""A binary linear classifier, of which everything about smoothing is known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advkit import rng
from advkit.data.data import Data

SHAPE = (1, 4, 4)


class Halfspace(nn.Module):
    """Class 1 where w.x > threshold, by logits whose size says nothing."""

    def __init__(self) -> None:
        super().__init__()
        w = rng.normal(torch.tensor([3]), (16,))
        self.w = nn.Parameter(w[0] / w.norm() * 2)
        self.threshold = nn.Parameter(self.w.detach().sum() / 2)

    def forward(self, x: Tensor) -> Tensor:
        lead = x.flatten(1) @ self.w - self.threshold
        return torch.stack([-lead, lead], 1)

    def distance(self, x: Tensor) -> Tensor:
        """(N,) l2, signed: the radius of the smoothed classifier, whatever sigma is."""
        return (x.flatten(1) @ self.w - self.threshold).detach() / self.w.detach().norm()


@pytest.fixture
def halfspace() -> Halfspace:
    return Halfspace()


@pytest.fixture
def data(halfspace: Halfspace) -> Data:
    """Twelve images at distances from -0.6 to 0.6; the third and the tenth have the wrong label."""
    distances = torch.tensor([-0.6, -0.45, -0.4, -0.3, -0.2, -0.02, 0.03, 0.2, 0.3, 0.4, 0.5, 0.6])
    w = halfspace.w.detach()
    flat = 0.5 + distances[:, None] * w / w.norm()
    labels = (distances > 0).long()
    labels[[2, 9]] = 1 - labels[[2, 9]]
    images = flat.view(-1, *SHAPE).clamp(0, 1)
    return Data("toy", "test", images, labels, ("left", "right"), torch.arange(12))
