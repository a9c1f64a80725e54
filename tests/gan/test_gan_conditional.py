"""Generators that draw the class that is asked for, and the games in which they learn it."""

from __future__ import annotations

import pytest
import torch

from advkit.data.data import Data
from advkit.gan.adversarial import GanGame
from advkit.gan.sample_logger import SampleLogger
from advkit.gan.train import train_gan

CPU = torch.device("cpu")


@pytest.mark.parametrize("how", ["projection", "auxiliary"])
def test_cards_and_grids_tell_of_classes(how, data, config):
    game = GanGame(config(conditional=how), data, CPU)
    card = game.models()["ema"].card
    assert (card.architecture, card.classes, card.labels) == ("conditional-generator", 2, ("even", "odd"))
    assert game.models()["discriminator"].card.architecture == f"{how}-discriminator"
    _, labels = SampleLogger(game, None)._fixed
    assert game.classes == 2 and labels[:20].tolist() == [0, 1] * 10


@pytest.mark.parametrize("how", ["projection", "auxiliary"])
def test_it_learns_to_draw_what_is_asked_for(how, config):
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
def test_an_auxiliary_classifier_costs_no_further_pass(loss, passes, data, config):
    """But for a generator that matches features, whose images are not judged."""
    game = GanGame(config(conditional="auxiliary", loss=loss, regularisers=()), data, CPU)
    seen: list[int] = []
    trunk = game.discriminators["discriminator"].trunk
    features = trunk.features
    trunk.features = lambda images: (seen.append(len(images)), features(images))[1]
    game.update()
    assert len(seen) == passes
