"""Generators that draw the class that is asked for, and the games in which they learn it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from advkit.data.data import Data
from advkit.errors import ConfigError
from advkit.gan.adversarial import GanGame
from advkit.gan.train import train_gan
from advkit.gan.witness import _columns

CPU = torch.device("cpu")


@pytest.mark.parametrize("loss", ["non-saturating", "relativistic", "dual-discriminator"])
@pytest.mark.parametrize("how", ["projection", "auxiliary"])
def test_generator_and_discriminator_are_told_the_classes_of_the_batch(
    how: str, loss: str, data: Data, config: Callable
) -> None:
    game = GanGame(config(conditional=how, loss=loss), data, CPU)
    asked: list[tuple[int, ...]] = []
    game.generator.register_forward_pre_hook(lambda module, given: asked.append(tuple(given[1].tolist())))
    before = [p.detach().clone() for p in game.generator.parameters()]
    assert torch.isfinite(game.play()).all()
    order = game.fresh if game.loss.fresh else game.order
    assert asked[-1] == tuple(data.labels[order.batch(0)].tolist())
    moved = [not torch.equal(old, new) for old, new in zip(before, game.generator.parameters(), strict=True)]
    assert all(moved)
    card = game.models()["ema"].card
    assert (card.architecture, card.classes, card.labels) == ("conditional-generator", 2, ("even", "odd"))
    assert game.models()["discriminator"].card.architecture == f"{how}-discriminator"


@pytest.mark.parametrize("how", ["projection", "auxiliary"])
def test_it_learns_to_draw_what_is_asked_for(how: str, config: Callable) -> None:
    """Of black and of white images."""
    images = (torch.arange(64) % 2 * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone()
    data = Data("contrast", "train", images, torch.arange(64) % 2, ("black", "white"), torch.arange(64))
    settings = config(
        conditional=how,
        arch="conv-gan",
        steps=150,
        batch_size=16,
        sample_every=150,
        rate_generator=2e-3,
        ema=100,
    )
    drawer = train_gan(settings, data).models["ema"]
    latent = drawer.network.draw(torch.arange(20))
    with torch.no_grad():
        dark, light = (drawer(latent, torch.full((20,), label)).mean() for label in (0, 1))
    assert light - dark > 0.1  # exactly 0, if it were deaf


@pytest.mark.parametrize(("loss", "passes"), [("hinge", 2), ("relativistic", 3), ("feature-matching", 4)])
def test_an_auxiliary_classifier_costs_no_further_pass(
    loss: str, passes: int, data: Data, config: Callable
) -> None:
    """But for a generator that matches features, whose images are not judged."""
    game = GanGame(config(conditional="auxiliary", loss=loss, regularisers=()), data, CPU)
    seen: list[int] = []
    trunk = game.opponents["discriminator"].trunk
    features = trunk.features
    trunk.features = lambda images: (seen.append(len(images)), features(images))[1]
    game.play()
    assert len(seen) == passes


def test_one_class_is_nothing_to_ask_for(data: Data, config: Callable) -> None:
    alike = replace(data, labels=torch.zeros_like(data.labels))
    with pytest.raises(ConfigError, match="all of one class"):
        GanGame(config(conditional="projection"), alike, CPU)


def test_grids_have_a_class_each_column(data: Data, config: Callable, tmp_path: Path) -> None:
    game = GanGame(config(conditional="auxiliary"), data, CPU)
    assert game.classes == 2
    (labels,) = _columns(game)
    assert labels[:10].tolist() == labels[10:20].tolist() == [0, 1] * 5
