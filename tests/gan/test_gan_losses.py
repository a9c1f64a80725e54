"""Every registered loss against its formula, and with every registered pair."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from advkit.core import rng
from advkit.gan.adversarial import GanGame
from advkit.gan.critic import Critic
from advkit.gan.loss import GAN_LOSSES, GanLoss
from advkit.models.network import pairs

LOSSES = [entry.name for entry in GAN_LOSSES]
CPU = torch.device("cpu")
BLIND = dict.fromkeys(("hinge", "relativistic", "wasserstein"), ("discriminator",))
"""Players whose last bias changes nothing, since only differences count."""


class Answers(nn.Module):
    """Its answer to an image is the first pixel, its features are all of them, each times a weight."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def features(self, x: Tensor) -> Tensor:
        return self.weight * x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[:, 0]


def make(name: str, **parameters: float) -> GanLoss:
    kind = GAN_LOSSES.get(name)
    return kind(kind.Config(**parameters))


def soft(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


FORMULAS: dict[str, tuple[Callable, Callable]] = {
    "minimax": (lambda r, f: (soft(-r).mean() + soft(f).mean()) / 2, lambda r, f: -soft(f).mean()),
    "non-saturating": (lambda r, f: (soft(-r).mean() + soft(f).mean()) / 2, lambda r, f: soft(-f).mean()),
    "least-squares": (
        lambda r, f: ((r - 1) ** 2).mean() / 2 + ((f + 1) ** 2).mean() / 2,
        lambda r, f: ((f - 1) ** 2).mean() / 2,
    ),
    "hinge": (lambda r, f: np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean(), lambda r, f: -f.mean()),
    "wasserstein": (lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
    "relativistic": (lambda r, f: soft(f - r).mean(), lambda r, f: soft(r - f).mean()),
    "dual-discriminator": (
        lambda r, f: soft(f).mean() - 0.3 * np.log(soft(r)).mean(),
        lambda r, f: 0.4 * np.log(soft(2 * f)).mean() - soft(f).mean(),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_losses_are_their_formulas(name):
    """On answers of every size; the auxiliary network answers twice as much."""
    loss = make(name, **({"alpha": 0.3, "beta": 0.4} if name == "dual-discriminator" else {}))
    real, fake = (2.5 * rng.normal(torch.arange(40) + i, (1, 1, 2)) for i in (0, 40))
    critics = {name: Critic(Answers(2.0 if name == "auxiliary" else 1.0)) for name in loss.discriminators}
    judged = loss.judge("discriminator", critics["discriminator"], real, fake)
    r, f = (x.flatten(1)[:, 0].double().numpy() for x in (real, fake))
    judging, generating = FORMULAS[name]
    assert judged.loss.item() == pytest.approx(judging(r, f), rel=1e-5)
    assert loss.generate(critics, fake, real).item() == pytest.approx(generating(r, f), rel=1e-5)
    zero = {"wasserstein": (r.mean() + f.mean()) / 2, "dual-discriminator": np.log(np.expm1(0.3))}.get(
        name, 0
    )
    if name == "relativistic":
        r, f = r - f, f - r
    assert ((judged.real > 0).numpy() == (r > zero)).all() and ((judged.fake > 0).numpy() == (f > zero)).all()


def test_the_second_of_two_discriminators_rewards_generated_images():
    loss = make("dual-discriminator", alpha=0.3, beta=0.4)
    real, fake = (2.5 * rng.normal(torch.arange(40) + i, (1, 1, 1)) for i in (0, 40))
    judged = loss.judge("auxiliary", Critic(Answers()), real, fake)
    scores = [soft(x.flatten().double().numpy()) for x in (real, fake)]
    wanted = scores[0].mean() - 0.4 * np.log(scores[1]).mean()
    assert judged.loss.item() == pytest.approx(wanted, rel=1e-5)
    for said, score in zip(judged[1:], scores, strict=True):
        assert said.detach().numpy() == pytest.approx(np.log(0.4 / score), rel=1e-4, abs=1e-5)
    never = loss.judge("discriminator", Critic(Answers()), torch.full_like(real, -999.0), fake)
    assert torch.isfinite(never.loss)  # a score of nought has a logarithm


def test_matched_features_are_those_of_the_mean_image():
    real, fake = (rng.normal(torch.arange(9) + i, (1, 2, 3)) for i in (0, 9))
    wanted = ((real.mean(0) - fake.mean(0)) ** 2).mean()
    loss = make("feature-matching").generate({"discriminator": Critic(Answers())}, fake, real)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_one_sided_smoothing_moves_the_label_of_real_images():
    real, fake = (rng.normal(torch.arange(9) + i, (1, 1, 1)) for i in (0, 9))
    judged = make("non-saturating", smoothing=0.1).judge("discriminator", Critic(Answers()), real, fake)
    halves = zip((real, fake), (0.9, 0.0), strict=True)
    wanted = [binary_cross_entropy_with_logits(x, torch.full_like(x, label)) for x, label in halves]
    assert judged.loss.item() == pytest.approx(sum(wanted).item() / 2, rel=1e-5)


def snapshot(game: GanGame) -> dict[str, list[Tensor]]:
    networks = {"generator": game.generator, **game.discriminators}
    return {name: [p.detach().clone() for p in net.parameters()] for name, net in networks.items()}


@pytest.mark.parametrize(
    ("loss", "arch", "precision"),
    [
        *((loss, "mlp-gan", "float32") for loss in LOSSES),
        *((loss, "conv-gan", "bfloat16") for loss in LOSSES),
        *(("relativistic", pair, "float32") for pair in pairs()),
    ],
)
def test_a_players_update_moves_all_its_weights_and_nobody_elses(loss, arch, precision, data, config):
    game = GanGame(config(loss=loss, arch=arch, precision=precision), data, CPU)
    played = []

    def watched(player: str, step: Callable[[], None]) -> Callable[[], None]:
        def stepping() -> None:
            network = game.generator if player == "generator" else game.discriminators[player]
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
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
    figures = [game.update() for _ in range(2)]
    assert torch.isfinite(torch.stack(figures)).all()
    assert played == [*game.loss.discriminators, "generator"] * 2
    assert all(p.requires_grad for net in game.discriminators.values() for p in net.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_packs_are_judged_as_one_image(name, data, config):
    game = GanGame(config(loss=name, packing=4, discriminator_steps=2), data, CPU)
    assert game.models()["discriminator"].card.shape == (4, 8, 8)
    seen: list[tuple[int, ...]] = []
    for network in game.discriminators.values():
        network.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    assert torch.isfinite(game.update()).all()
    assert set(seen) <= {(2, 4, 8, 8), (4, 4, 8, 8)}  # one half, or both
