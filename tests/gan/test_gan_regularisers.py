"""Regularisers against what they are on a linear discriminator, and their share of the training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advkit import rng
from advkit.data.data import Data
from advkit.errors import ConfigError
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
def test_on_a_linear_discriminator(name: str, wanted: Callable[[float], float], loss: str) -> None:
    weight = rng.normal(torch.arange(1), (1, 8, 8))
    critic, kind = Critic(Linear(weight)), GAN_LOSSES.get(loss)
    real, fake = (rng.uniform(torch.arange(6) + i, (1, 8, 8)).requires_grad_() for i in (0, 6))
    judged = kind(kind.Config()).judge("discriminator", critic, real, fake)
    term = make(name).penalty(critic, real, fake, judged, torch.linspace(0, 1, 6))
    assert term.item() == pytest.approx(wanted(weight.norm().item()), rel=1e-4)
    (slope,) = torch.autograd.grad(term, critic.network.weight)
    assert slope.abs().min() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_lazy_term_weighs_what_its_pauses_are_owed(name: str) -> None:
    term = make(name, weight=2.0, every=4)
    assert [term.due(step) for step in range(6)] == [True, False, False, False, True, False]
    assert sum(term.weight(step, 100) for step in range(100) if term.due(step)) == pytest.approx(200)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_may_fall_along_half_a_cosine(name: str) -> None:
    term = make(name, weight=2.0, final=0.2)
    assert [term.weight(step, 100) for step in (0, 50, 100)] == pytest.approx([2.0, 1.1, 0.2])


@pytest.mark.parametrize("name", NAMES)
def test_it_makes_the_discriminator_smoother(name: str, data: Data, config: Callable) -> None:
    """The same steps with a heavy weight leave a smaller gradient at real images."""

    def slope(weight: float) -> float:
        settings = config(
            steps=30,
            loss="wasserstein",
            regularisers=(name,),
            regularisation={name: {"weight": weight}},
            discriminator={"hidden": (16,), "dropout": 0.0},
            rate_discriminator=5e-3,
            precision="float32",
        )
        game = GanGame(settings, data, torch.device("cpu"))
        for _ in range(30):
            game.play()
        images, _ = data.batch(torch.arange(40))
        answers = game.opponents["discriminator"](images.requires_grad_())
        (gradient,) = torch.autograd.grad(answers.sum(), images)
        return gradient.flatten(1).norm(dim=1).mean().item()

    assert slope(100.0) < 0.9 * slope(1e-6)


def test_what_belongs_to_a_loss_can_be_changed_and_left_out(data: Data, config: Callable) -> None:
    def names(**changes: object) -> list[tuple[str, float]]:
        game = GanGame(config(loss="relativistic", **changes), data, torch.device("cpu"))
        return [(type(term).__name__, term.config.weight) for term in game.regularisers]

    assert names() == [("R1", 1.0), ("R2", 1.0)]
    assert names(regularisation={"r2": {"weight": 0.5}}) == [("R1", 1.0), ("R2", 0.5)]
    assert names(regularisers=("r1",)) == [("R1", 1.0)]
    assert names(regularisers=()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"regularisers": ("r3",)}, "no regulariser called 'r3'; known: gradient-penalty, r1, r2"),
        ({"regularisation": {"r1": {}}}, "regularisation.r1 has parameters but is not used"),
        ({"regularisers": ("r1",), "regularisation": {"r1": {"weight": -1}}}, "weight"),
    ],
)
def test_faults(changes: dict, said: str, data: Data, config: Callable) -> None:
    with pytest.raises(ConfigError, match=said):
        GanGame(config(**changes), data, torch.device("cpu"))
