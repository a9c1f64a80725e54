"""Every registered loss with every registered pair."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advkit import rng
from advkit.data.data import Data
from advkit.gan.adversarial import GanGame
from advkit.gan.critic import Critic
from advkit.gan.loss import GAN_LOSSES, GanLoss
from advkit.models.network import pairs

LOSSES = [entry.name for entry in GAN_LOSSES]


BLIND = dict.fromkeys(("hinge", "relativistic", "wasserstein"), ("discriminator",))
"""Players whose last bias changes nothing, since only differences count."""


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


@pytest.mark.parametrize(
    ("arch", "precision"), [*((pair, "float32") for pair in pairs()), ("conv-gan", "bfloat16")]
)
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
            still = [bool((parameter.grad == 0).all()) for parameter in network.parameters()]
            assert sum(still) <= (player in BLIND.get(loss, ()))
            before = snapshot(game)
            step()
            for name, weights in snapshot(game).items():
                moved = [not torch.equal(old, new) for old, new in zip(before[name], weights, strict=True)]
                if name == player:
                    assert all(map(operator.or_, moved, still)), player
                else:
                    assert not any(moved), (player, name)
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
    images, nothing = torch.zeros(6, 1, 8, 8), Critic(Says(0.0))
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
        make(name).generate({"discriminator": Critic(judge)}, images, images).backward()
        wanted = -torch.sigmoid(torch.tensor(sign * logit)).item()
        assert judge.logit.grad is not None
        assert judge.logit.grad.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_wanted_judgement_costs_less(name: str) -> None:
    """Of discriminators of the mean pixel, right costs less than wrong, and fooling pays."""
    loss = make(name)

    class Mean(nn.Module):
        def features(self, x: Tensor) -> Tensor:
            return x.flatten(1).mean(1, keepdim=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.sign * 20 * (self.features(x)[:, 0] - 0.5)

        def __init__(self, sign: int) -> None:
            super().__init__()
            self.sign = sign

    bright = 0.5 + 0.5 * rng.uniform(torch.arange(5), (1, 8, 8))
    # The auxiliary network of three rewards what is generated.
    networks = {name: Critic(Mean(-1 if name == "auxiliary" else 1)) for name in loss.opponents}
    for opponent, network in networks.items():
        right = loss.judge(opponent, network, bright, 1 - bright)
        wrong = loss.judge(opponent, network, 1 - bright, bright)
        assert right.loss < wrong.loss
        assert (right.real > 0).all()
        assert (right.fake < 0).all()
    fooled = loss.generate(networks, bright, bright)
    assert fooled < loss.generate(networks, 1 - bright, bright)


@pytest.mark.parametrize(
    ("name", "judged", "generated"),
    [
        ("least-squares", 1.0, 0.5),
        ("hinge", 2.0, 0.0),
        ("wasserstein", 0.0, 0.0),
        ("relativistic", None, None),
    ],
)
def test_losses_of_one_that_answers_nought(name: str, judged: float | None, generated: float | None) -> None:
    images, nothing = torch.zeros(6, 1, 8, 8), Critic(Says(0.0))
    wanted = math.log(2)
    loss = make(name).judge("discriminator", nothing, images, images).loss.item()
    assert loss == pytest.approx(wanted if judged is None else judged)
    fooled = make(name).generate({"discriminator": nothing}, images, images).item()
    assert fooled == pytest.approx(wanted if generated is None else generated)


def test_smoothing_moves_the_best_answer_from_sure_to_its_log_odds() -> None:
    """With a label of 0.9, the answer ln 9 to real images costs least."""
    kind = GAN_LOSSES.get("non-saturating")
    loss, images = kind(kind.Config(smoothing=0.1)), torch.zeros(4, 1, 8, 8)

    def slope(logit: float) -> float:
        judge = Says(logit)
        real = loss.judge("discriminator", Critic(judge), images, images).loss
        plain = make("non-saturating").judge("discriminator", Critic(judge), images, images).loss
        (gradient,) = torch.autograd.grad(real - plain, judge.logit)
        return gradient.item() - torch.sigmoid(torch.tensor(-logit)).item() / 2

    assert slope(math.log(9)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("opponent", "best"), [("discriminator", 0.2 * 3), ("auxiliary", 0.1 / 3)])
def test_two_discriminators_settle_on_the_ratio_of_densities(opponent: str, best: float) -> None:
    """Where real images are three times as likely as generated ones, D1 = 3 alpha and D2 = beta / 3."""
    kind = GAN_LOSSES.get("dual-discriminator")
    loss = kind(kind.Config(alpha=0.2, beta=0.1))

    class AtOnePlace(nn.Module):
        """Answers at images of zeros with its weight, elsewhere with 0."""

        def __init__(self) -> None:
            super().__init__()
            self.logit = nn.Parameter(torch.tensor(math.log(math.expm1(best))))  # its softplus is the best

        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x.flatten(1).amax(1) == 0, self.logit, 0.0)

    judge, here, there = AtOnePlace(), torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    real, fake = torch.cat([here, here, here, there]), torch.cat([here, there, there, there])
    judged = loss.judge(opponent, Critic(judge), real, fake)
    (slope,) = torch.autograd.grad(judged.loss, judge.logit)
    assert slope.item() == pytest.approx(0, abs=1e-6)
    assert judged.real[0].item() == pytest.approx(math.log(3), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_packs_are_judged_as_one_image(name: str, data: Data, config: Callable) -> None:
    game = GanGame(config(loss=name, packing=4, discriminator_steps=2), data, torch.device("cpu"))
    assert game.models()["discriminator"].card.shape == (4, 8, 8)
    seen: list[tuple[int, ...]] = []
    for network in game.opponents.values():
        network.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    assert torch.isfinite(game.play()).all()
    assert set(seen) <= {(2, 4, 8, 8), (4, 4, 8, 8)}  # one half, or both
