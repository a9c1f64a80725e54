import pytest
import torch
from torch import nn

from advkit import rng
from advkit.models.load import wrap


class Block(nn.Module):
    """A sum of two branches, and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.shortcut = nn.Conv2d(2, 3, 1, stride=2)

    def forward(self, x):
        return torch.relu(self.second(self.norm(self.first(x)).relu()) + self.shortcut(x))


class Shapes(nn.Module):
    """Functions in place of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=2, dilation=2, groups=1)
        self.linear = nn.Linear(8, 3)

    def forward(self, x):
        x = nn.functional.leaky_relu(self.conv(x * 2 - 1), 0.1)
        left, right = x.mean((2, 3)), nn.functional.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)
        return self.linear(torch.cat([left, 0.5 - right], 1)) / 2


NETWORKS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 3)),
    "dense": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(36, 8),
        nn.ReLU(),
        nn.Linear(8, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Linear(6, 3),
    ),
    "deep": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1, groups=1),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 4, 2, groups=2),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(16, 3),
    ),
    "max-pool": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(27, 3)
    ),
    "pool-first": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
    ),
    "average": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AdaptiveAvgPool2d((2, 3)),
        nn.Flatten(),
        nn.Linear(18, 3),
    ),
    "residual": lambda: nn.Sequential(nn.Conv2d(1, 2, 1), Block(), nn.Flatten(), nn.Linear(27, 3)),
    "functions": Shapes,
}


@pytest.fixture(params=NETWORKS)
def network(request):
    """A small classifier of 6x6 images in three classes, with batch norms that have seen something."""
    return made(request.param)


def made(name):
    with rng.scope("cpu", 1, name):
        module = NETWORKS[name]()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.5, 2)
    return wrap(module, shape=(1, 6, 6)).eval()


@pytest.fixture
def images():
    """(5, 1, 6, 6), some pixels of them black or white."""
    return (1.4 * rng.uniform(torch.arange(5), (1, 6, 6)) - 0.2).clamp(0, 1)
