"""Training of a variational autoencoder (Kingma and Welling 2014), beside the GAN."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from advkit.core.errors import ConfigError, did_you_mean
from advkit.data.data import Data
from advkit.gan.game import Game
from advkit.gan.settings import GanTraining
from advkit.models.card import Parent
from advkit.models.model import Model
from advkit.models.network import Generator, Vae, vaes
from advkit.training.schedule import factor


class VaeGame(Game):
    """An encoder and a decoder with one loss; arguments and attributes are those of `Game`."""

    figures = ("loss", "reconstruction", "divergence")
    shown = {"loss": "loss"}

    def __init__(self, config: GanTraining, data: Data, device: torch.device) -> None:
        super().__init__(config, data, device)
        if config.arch not in vaes():
            near = did_you_mean(config.arch, vaes())
            raise ConfigError(f"there is no vae called {config.arch!r}{near}; known: {', '.join(vaes())}")
        self.vae = cast(Vae, self._build(config.arch, config.generator, "vae"))
        self.networks = {"vae": self.vae}
        self.ema = self._averaged(self.vae)
        self.optimisers = {"vae": self._adam(self.vae, config.rate_generator)}

    @property
    def ema_generator(self) -> Generator:
        """The averaged decoder."""
        return cast(Vae, self.ema.network).decoder

    @property
    def counted(self) -> dict[str, nn.Module]:
        """The decoder, which represents the encoder before it, too."""
        return {"vae": self.vae.decoder}

    @property
    def weight(self) -> float:
        """Of the divergence, at this step."""
        grown = self.config.divergence_warmup * self.steps
        return self.config.divergence * (min(1.0, self.step / grown) if grown else 1.0)

    def update(self) -> Tensor:
        """One step.

        Returns:
            (3,) on the device: the loss, cross-entropy of the images that come back, and divergence from the
            prior, in nats an image.
        """
        self.set_rates(factor(self.config.schedule, self.step, self.steps))
        real, _ = self.batch(self.step)
        with self.randomness(self.config.seed, "step"), self._autocast():
            mean, log_variance = (part.float() for part in self.vae.encode(real))
            noise = self.latent(self.ids, "latent", self.step)
            back = self.vae.decoder(mean + noise * (log_variance / 2).exp())
        wrong = binary_cross_entropy(back.float().clamp(0, 1), real, reduction="sum") / len(real)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2 / len(real)
        loss = wrong + self.weight * divergence
        self._update("vae", loss)
        self.ema.update(self.vae, self.step)
        self.step += 1
        return torch.stack([loss.detach(), wrong.detach(), divergence.detach()])

    def average(self) -> Model:
        """The averaged decoder."""
        return self._decoder(self._whole())

    def models(self) -> dict[str, Model]:
        """The averaged whole, and its decoder as a generator ("ema")."""
        whole = self._whole()
        return {"vae": whole, "ema": self._decoder(whole)}

    def _whole(self) -> Model:
        return self._model(self.ema.network, "vae", self.config.arch, self.config.generator)

    def _decoder(self, whole: Model) -> Model:
        settings = cast(Any, self.ema.network.config)
        parent = Parent(relation="decoder-of", hash=whole.hash, name=f"{self.name}-vae")
        return self._model(self.ema_generator, "generator", settings.decoder, settings.decoder_config, parent)
