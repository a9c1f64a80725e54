"""A step of the game beside one that is written down here, and the loop around it by a clock of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from advkit.core import rng
from advkit.gan.adversarial import GanGame
from advkit.gan.critic import Critic
from advkit.gan.sample_logger import SampleLogger
from advkit.gan.variational import VaeGame

CPU = torch.device("cpu")
RATES = {
    "schedule": "cosine",
    "steps": 4,
    "rate_generator": 3e-3,
    "rate_discriminator": 5e-3,
    "beta1": 0.3,
    "beta2": 0.9,
    "ema": 1.85,
    "precision": "float32",
    "discriminator": {"hidden": (16,), "dropout": 0.0},
}
KEEP = 0.5 ** (8 / 1.85)
"""Decay of the average, of a half-life of 1.85 images in steps of 8; less than the ramp's least."""


def one_step(game: GanGame, average: list[Tensor], adam: dict[str, torch.optim.Adam]) -> list[float]:
    """Plays with the networks of ``game``, and optimisers and an average of the test's own."""
    config, data, step, loss = game.config, game.data, game.step, game.loss
    share = (1 + torch.tensor(torch.pi * step / config.steps).cos().item()) / 2
    turns, figures = config.discriminator_steps, [0.0] * 5

    def drawn(stream: str, number: int, labels: Tensor) -> Tensor:
        latent = game.generator.draw(rng.keys(config.seed, stream, torch.arange(config.batch_size), number))
        return game.generator(latent, labels) if game.classes else game.generator(latent)

    def critic(name: str, labels: Tensor) -> Critic:
        return Critic(game.discriminators[name], labels if config.conditional == "projection" else None)

    def updated(player: str, wanted: Tensor) -> None:
        peak = config.rate_generator if player == "generator" else config.rate_discriminator
        adam[player].param_groups[0]["lr"] = peak * share
        adam[player].zero_grad()
        wanted.backward()
        adam[player].step()

    def told_apart(judge: Critic, labels: Tensor, *images: Tensor) -> Any:
        if config.conditional != "auxiliary":
            return 0
        return sum(cross_entropy(judge.network.classify(x), labels) for x in images)

    with rng.scope("cpu", config.seed, "step", step):
        for turn in range(turns):
            real, labels = data.batch(game.order.batch(step * turns + turn))
            fake = drawn("latent", step * turns + turn, labels)
            for name in game.discriminators:
                seen, made, judge = (
                    real.requires_grad_(),
                    fake.detach().requires_grad_(),
                    critic(name, labels),
                )
                judged = loss.judge(name, judge, seen, made)
                wanted = judged.loss + told_apart(judge, labels, seen, made)
                for term in game.regularisers:
                    if term.due(step):
                        noise = torch.rand(len(real))
                        penalty = term.penalty(judge, seen, made, judged, noise)
                        wanted = wanted + penalty * term.weight(step, config.steps)
                updated(name, wanted)
                many = turns * len(game.discriminators)
                figures[0] += judged.loss.item() / many
                figures[1] += (judged.real > 0).float().mean().item() / many
                figures[2] += (judged.fake <= 0).float().mean().item() / many
        if loss.fresh:
            real, labels = data.batch(game.fresh.batch(step))
            fake = drawn("fresh", step, labels)
        critics = {name: critic(name, labels) for name in game.discriminators}
        wanted = loss.generate(critics, fake, real)
        wanted = wanted + sum(told_apart(judge, labels, fake) for judge in critics.values())
        updated("generator", wanted)
    figures[3] = wanted.item()
    for mean, weight in zip(average, game.generator.parameters(), strict=True):
        mean.mul_(KEEP).add_(weight.detach(), alpha=1 - KEEP)
    game.step += 1
    return figures


def alike(mine: Iterable[Tensor], theirs: Iterable[Tensor], start: Iterable[Tensor]) -> bool:
    """Whether both moved to the same place; numbers whose gradient is nought but for rounding may not."""
    moves = [(a - b, a - c) for a, b, c in zip(mine, theirs, start, strict=True) if a.dim() > 1]
    return all(apart.abs().mean() < 0.02 * moved.abs().mean() for apart, moved in moves)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "hinge", "conditional": "projection", "discriminator_steps": 2},
        {"loss": "least-squares", "conditional": "auxiliary"},
        {"loss": "relativistic", "regularisation": {"r1": {"every": 2}, "r2": {"final": 0.2}}},
        {"loss": "dual-discriminator", "discriminator_steps": 3, "parameters": {"beta": 0.5}},
        {"loss": "wasserstein", "discriminator_steps": 2},
    ],
    ids=lambda changes: changes["loss"],
)
def test_a_step_is_that_of_the_formulas(changes, data, config):
    game, other = (GanGame(config(**RATES, **changes), data, CPU) for _ in range(2))
    betas = (0.3, 0.9)
    adam = {
        name: torch.optim.Adam(network.parameters(), 1.0, betas) for name, network in other.networks.items()
    }
    average = [weight.detach().clone() for weight in other.generator.parameters()]
    start = [weight.detach().clone() for weight in game.generator.parameters()]
    for _ in range(3):
        told = game.update().tolist()
        assert told == pytest.approx(one_step(other, average, adam), rel=1e-2, abs=1e-3)
        assert told[1] + told[2] > 0 and told[4] == 0
    assert alike(game.generator.parameters(), other.generator.parameters(), start)
    assert alike(game.ema.network.parameters(), average, start)


@pytest.mark.parametrize(("half_life", "decay"), [(0, 0.0), (8, 0.5), (80, 0.5**0.1)])
def test_the_half_life_of_the_average_is_in_images(half_life, decay, data, config):
    assert GanGame(config(ema=half_life), data, CPU).ema.decay == pytest.approx(decay)


def test_an_autoencoder_follows_the_schedule_too(data, config):
    small = {"decoder_config": {"channels": (16, 8, 8)}, "channels": (8, 8), "hidden": 16}
    settings = config(
        kind="vae", arch="conv-vae", generator=small, discriminator={}, schedule="cosine", steps=4
    )
    game, rates = VaeGame(settings, data, CPU), []
    for _ in range(3):
        game.update()
        rates.append(game.optimisers["vae"].param_groups[0]["lr"] / settings.rate_generator)
    assert rates == pytest.approx([1.0, 0.5 + 0.5**1.5, 0.5])


@pytest.mark.parametrize("how", ["projection", "auxiliary"])
def test_cards_and_grids_tell_of_classes(how, data, config):
    game = GanGame(config(conditional=how), data, CPU)
    card = game.models()["ema"].card
    assert (card.architecture, card.classes, card.labels) == ("conditional-generator", 2, ("even", "odd"))
    assert game.models()["discriminator"].card.architecture == f"{how}-discriminator"
    _, labels = SampleLogger(game, None)._fixed
    assert game.classes == 2 and labels[:20].tolist() == [0, 1] * 10


@pytest.mark.parametrize(("loss", "passes"), [("hinge", 2), ("relativistic", 3), ("feature-matching", 4)])
def test_an_auxiliary_classifier_costs_no_further_pass(loss, passes, data, config):
    """But for a generator that matches features, whose images are not judged."""
    game = GanGame(config(conditional="auxiliary", loss=loss, regularisers=()), data, CPU)
    seen: list[int] = []
    trunk = game.discriminators["discriminator"].trunk
    features = trunk.features
    trunk.features = lambda images: (seen.append(len(images)), features(images))[1]
    game.update()
    assert len(seen) == passes
