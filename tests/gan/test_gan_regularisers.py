"""Regularisers against what they are on a linear discriminator, and their share of the training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advkit.core import rng
from advkit.gan.adversarial import GanGame
from advkit.gan.critic import Critic
from advkit.gan.loss import GAN_LOSSES
from advkit.gan.regulariser import REGULARISERS, Regulariser

NAMES = [entry.name for entry in REGULARISERS]


class Linear(nn.Module):
    """x to w.x, whose gradient is w everywhere."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).flatten(1).sum(1)


def make(name: str, **parameters: object) -> Regulariser:
    kind = REGULARISERS.get(name)
    return kind(kind.Config(**parameters))


@pytest.mark.parametrize("loss", ["non-saturating", "relativistic", "wasserstein"])
@pytest.mark.parametrize(
    ("name", "wanted"),
    [("r1", lambda n: n**2 / 2), ("r2", lambda n: n**2 / 2), ("gradient-penalty", lambda n: (n - 1) ** 2)],
)
def test_on_a_linear_discriminator(name, wanted, loss):
    weight = rng.normal(torch.arange(1), (1, 8, 8))
    critic, kind = Critic(Linear(weight)), GAN_LOSSES.get(loss)
    real, fake = (rng.uniform(torch.arange(6) + i, (1, 8, 8)).requires_grad_() for i in (0, 6))
    judged = kind(kind.Config()).judge("discriminator", critic, real, fake)
    term = make(name).penalty(critic, real, fake, judged, torch.linspace(0, 1, 6))
    assert term.item() == pytest.approx(wanted(weight.norm().item()), rel=1e-4)
    (slope,) = torch.autograd.grad(term, critic.network.weight)
    assert slope.abs().min() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_lazy_term_weighs_what_its_pauses_are_owed(name):
    term = make(name, weight=2.0, every=4)
    assert [term.due(step) for step in range(6)] == [True, False, False, False, True, False]
    assert sum(term.weight(step, 100) for step in range(100) if term.due(step)) == pytest.approx(200)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_may_fall_along_half_a_cosine(name):
    term = make(name, weight=2.0, final=0.2)
    assert [term.weight(step, 100) for step in (0, 50, 100)] == pytest.approx([2.0, 1.1, 0.2])


def test_what_belongs_to_a_loss_can_be_changed_and_left_out(data, config):
    def names(**changes: object) -> list[tuple[str, float]]:
        game = GanGame(config(loss="relativistic", **changes), data, torch.device("cpu"))
        return [(type(term).__name__, term.config.weight) for term in game.regularisers]

    assert names() == [("R1", 1.0), ("R2", 1.0)]
    assert names(regularisation={"r2": {"weight": 0.5}}) == [("R1", 1.0), ("R2", 0.5)]
    assert names(regularisers=("r1",)) == [("R1", 1.0)]
    assert names(regularisers=()) == []
