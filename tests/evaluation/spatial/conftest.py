import pytest
import torch
from torch import nn

from advkit.core import rng
from advkit.data.data import Data
from advkit.models.load import wrap
from advkit.models.model import Model


class Upper(nn.Module):
    """Two classes: is the upper half darker or brighter than the lower one?"""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(10.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.mean((1, 3))
        score = self.gain * (rows[:, :4].mean(1) - rows[:, 4:].mean(1))
        return torch.stack([-score, score], 1)


@pytest.fixture
def upper() -> tuple[Model, Data]:
    """(model, data): noise, with the model's own answers as labels but for two."""
    model = wrap(Upper(), shape=(1, 8, 8)).eval()
    x = rng.uniform(torch.arange(40), (1, 8, 8)) ** 3
    with torch.no_grad():
        labels = model(x).argmax(1)
    labels[[3, 7]] = 1 - labels[[3, 7]]
    return model, Data("toy", "test", x, labels, ("down", "up"), torch.arange(40))
