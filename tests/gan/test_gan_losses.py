"""Every registered loss with every registered pair."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advkit import rng
from advkit.data.data import Data
from advkit.gan.loss import GAN_LOSSES, GanLoss
from advkit.gan.train import GanGame
from advkit.models.network import pairs

LOSSES = [entry.name for entry in GAN_LOSSES]


class Says(nn.Module):
    """A discriminator that gives its one weight as every logit."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, x: Tensor) -> Tensor:
        return self.logit.expand(len(x))


def make(name: str) -> GanLoss:
    kind = GAN_LOSSES.get(name)
    return kind(kind.Config())


def snapshot(game: GanGame) -> dict[str, list[Tensor]]:
    networks = {"generator": game.generator, **game.opponents}
    return {name: [p.detach().clone() for p in net.parameters()] for name, net in networks.items()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", pairs())
@pytest.mark.parametrize("loss", LOSSES)
def test_a_players_update_moves_all_its_weights_and_nobody_elses(
    loss: str, arch: str, precision: str, data: Data, config: Callable
) -> None:
    game = GanGame(config(loss=loss, arch=arch, precision=precision), data, torch.device("cpu"))
    played = []

    def watched(player: str, step: Callable[[], None]) -> Callable[[], None]:
        def stepping() -> None:
            network = game.generator if player == "generator" else game.opponents[player]
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name
            before = snapshot(game)
            step()
            for name, weights in snapshot(game).items():
                moved = [not torch.equal(old, new) for old, new in zip(before[name], weights, strict=True)]
                assert all(moved) if name == player else not any(moved), (player, name)
            played.append(player)

        return stepping

    for player, optimiser in game.optimisers.items():
        optimiser.step = watched(player, optimiser.step)
    figures = [game.play() for _ in range(2)]
    assert torch.isfinite(torch.stack(figures)).all()
    assert played == [*game.loss.opponents, "generator"] * 2
    assert all(p.requires_grad for net in game.opponents.values() for p in net.parameters())


@pytest.mark.parametrize(("name", "wanted"), [("minimax", -math.log(2)), ("non-saturating", math.log(2))])
def test_a_discriminator_that_knows_nothing(name: str, wanted: float) -> None:
    images, nothing = torch.zeros(6, 1, 8, 8), Says(0.0)
    judged = make(name).judge("discriminator", nothing, images, images)
    assert judged.loss.item() == pytest.approx(math.log(2), rel=1e-6)
    assert judged.real.shape == judged.fake.shape == (6,)
    generated = make(name).generate({"discriminator": nothing}, images, images)
    assert generated.item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("logit", [-8.0, -1.0, 0.0, 2.0])
def test_the_generators_pull_on_the_logit(logit: float) -> None:
    """Saturating: -sigmoid(l), which vanishes on a fake that is seen through; else -sigmoid(-l)."""
    images = torch.zeros(4, 1, 8, 8)
    for name, sign in (("minimax", 1), ("non-saturating", -1)):
        judge = Says(logit)
        make(name).generate({"discriminator": judge}, images, images).backward()
        wanted = -torch.sigmoid(torch.tensor(sign * logit)).item()
        assert judge.logit.grad is not None
        assert judge.logit.grad.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_wanted_judgement_costs_less(name: str) -> None:
    """Of a logistic discriminator of the mean pixel, right costs less than wrong, and fooling pays."""
    loss = make(name)

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 20 * (x.flatten(1).mean(1) - 0.5)

    bright = 0.5 + 0.5 * rng.uniform(torch.arange(5), (1, 8, 8))
    networks = {name: Mean() for name in loss.opponents}
    for opponent, network in networks.items():
        right = loss.judge(opponent, network, bright, 1 - bright)
        wrong = loss.judge(opponent, network, 1 - bright, bright)
        assert right.loss < wrong.loss
        assert (right.real > 0).all()
        assert (right.fake < 0).all()
    fooled = loss.generate(networks, bright, bright)
    assert fooled < loss.generate(networks, 1 - bright, bright)
