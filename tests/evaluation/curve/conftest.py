import pytest
import torch
from torch import nn

from advkit.core import rng
from advkit.core.threat import Threat
from advkit.data.data import Data


class Linear(nn.Module):
    """Two classes, logits (0, w.x + b): every minimum norm is known in closed form."""

    def __init__(self, weight: torch.Tensor, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = x.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.fixture
def linear() -> tuple[Linear, Data]:
    """(model, data): 16 pixels around 1/2, labelled by the model but for images 3 and 8."""
    weight = rng.normal(torch.tensor([7]), (16,))[0]
    x = 0.5 + 0.2 * (rng.uniform(torch.arange(40), (1, 4, 4)) - 0.5)
    model = Linear(weight, -0.5 * float(weight.sum()))
    with torch.no_grad():
        labels = model(x).argmax(1)
    labels[[3, 8]] = 1 - labels[[3, 8]]
    threat = Threat("linf", 0.02)
    return model, Data("toy", "test", x, labels, ("below", "above"), torch.arange(40), threat)
