"""The VAE as a game of one: its loss against the closed form, what it leaves, and its resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from advkit.commands.gan_train import run as train
from advkit.core.context import Context
from advkit.gan.variational import VaeGame
from advkit.models.checkpoint import load_checkpoint

SMALL = {"decoder_config": {"channels": (16, 8, 8)}, "channels": (8, 8), "hidden": 16}


@pytest.fixture
def settings(config):
    return lambda **changes: config(kind="vae", arch="conv-vae", generator=SMALL, discriminator={}, **changes)


def test_the_loss_is_minus_the_evidence_bound(data, settings, monkeypatch):
    at_once = settings(precision="float32", divergence=0.5, divergence_warmup=0)
    game = VaeGame(at_once, data, torch.device("cpu"))
    mean, log_variance = torch.full((8, 100), 0.5), torch.full((8, 100), -1.0)
    monkeypatch.setattr(game.vae, "encode", lambda x: (mean, log_variance))
    nothing = 0 * next(game.vae.parameters()).sum()  # something to differentiate
    monkeypatch.setattr(game.vae.decoder, "forward", lambda z: torch.full((8, 1, 8, 8), 0.5) + nothing)
    loss, wrong, divergence = game.update().tolist()
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    closed = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert divergence == pytest.approx(closed.item(), rel=1e-5)
    assert wrong == pytest.approx(64 * torch.tensor(2.0).log().item(), rel=1e-5)
    assert loss == pytest.approx(wrong + 0.5 * divergence, rel=1e-5)


def test_the_weight_of_the_divergence_grows_at_first(data, settings):
    game = VaeGame(settings(steps=10, divergence=2.0, divergence_warmup=0.4), data, torch.device("cpu"))
    weights = []
    for _ in range(6):
        weights.append(game.weight)
        game.update()
    assert weights == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]


def test_all_weights_move_and_the_loss_falls(data, settings):
    game = VaeGame(settings(rate_generator=2e-3), data, torch.device("cpu"))
    before = [p.detach().clone() for p in game.vae.parameters()]
    first = torch.stack([game.update() for _ in range(5)]).mean(0)
    for _ in range(40):
        last = game.update()
    assert last[0] < first[0]
    moved = [not torch.equal(old, new) for old, new in zip(before, game.vae.parameters(), strict=True)]
    assert all(moved)


def test_the_decoder_is_left_as_a_generator(settings):
    outcome = train(settings(name="toy"), Context(out=Path("run")))
    whole, decoder = (load_checkpoint(Path("run") / f"{name}.safetensors") for name in ("vae", "ema"))
    assert (whole.card.role, decoder.card.role) == ("vae", "generator")
    assert decoder.card.lineage[0].hash == whole.hash
    latent = decoder.network.draw(torch.arange(3))
    with torch.no_grad():
        assert torch.equal(whole.network.decoder(latent), decoder(latent))
    assert {"loss", "reconstruction", "divergence", "fid"} <= outcome.result["last"].keys()
    assert all(picture.path.exists() for picture in outcome.pictures)


def test_a_resumed_run_ends_with_the_same_bits(data, settings):
    game, other = (VaeGame(settings(), data, torch.device("cpu")) for _ in range(2))
    for _ in range(6):
        game.update()
    torch.save(game.state(), "state.pt")
    other.restore(torch.load("state.pt", weights_only=True))
    one, same = (torch.stack([each.update() for _ in range(4)]) for each in (game, other))
    assert torch.equal(one, same)
    assert game.models()["vae"].hash == other.models()["vae"].hash
