"""Adversarial training against a perturbation generator that is trained at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit import __version__
from advkit.attacks.advgan import NORMS, moved
from advkit.attacks.engine.oracle import query
from advkit.core.config import Fraction, StrictModel, validate
from advkit.core.runs import now
from advkit.core.threat import Threat
from advkit.models.card import ModelCard, ThreatFacts
from advkit.models.model import Model, evaluation_mode
from advkit.models.network import ARCHITECTURES
from advkit.trained_attacks.generators.game import GENERATOR, AdvGanGame
from advkit.trained_attacks.generators.settings import AdvGanSettings, GameSettings
from advkit.training.objective import Batch, Companion, Objective, Passes, Setting, Smoothing, objective


class Generators(Companion):
    """A generator, its discriminator and their optimisers for each threat model.

    Args:
        games: before their first update.
    """

    def __init__(self, games: Mapping[Threat, AdvGanGame]) -> None:
        self.games = games

    def state(self) -> dict[str, Any]:
        """The states of the games, by threat model."""
        return {str(threat): game.state() for threat, game in self.games.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the result of `state`."""
        for threat, game in self.games.items():
            game.restore(state[str(threat)])

    def models(self) -> dict[str, Model]:
        """The EMA generators, as attacks."""
        several = len(self.games) > 1
        return {
            f"advgan-{threat.norm}" if several else "advgan": Model(game.best(), _card(game, threat)).eval()
            for threat, game in self.games.items()
        }


def _card(game: AdvGanGame, threat: Threat) -> ModelCard:
    return ModelCard(
        role="perturbation-generator",
        architecture=GENERATOR,
        config=game.config.generator,
        shape=game.generator.shape,
        threat=ThreatFacts(norm=threat.norm, eps=threat.eps),
        training={"command": "adv-train", **game.config.model_dump(mode="json"), "step": game.step},
        created=now(),
        advkit=__version__,
    )


@objective(
    "advgan",
    summary="cross-entropy on the examples of a perturbation generator that is trained with the classifier",
    source="Xiao et al., Generating Adversarial Examples with Adversarial Networks, IJCAI 2018; "
    "Lee, Han and Lee, Generative Adversarial Trainer, 2017",
)
class AdvGanTraining(Objective):
    """On each batch, first updates the generator against the current classifier, then the classifier on the
    generator's examples.

    The classifier becomes robust against this generator, but not necessarily against others or against
    gradient-based attacks: evaluate it by `cascade`.
    """

    class Config(Smoothing, GameSettings):
        updates: int = Field(1, ge=1)
        """Updates of the generator per update of the classifier."""
        clean_weight: Fraction = Field(0.5, ge=0, le=1)
        """Weight of the loss on clean images; 0 trains on adversarial examples only."""
        eps_warmup: Fraction = Field(0.1, ge=0, le=1)
        """Share of the training over which eps grows from 0 to its full size."""
        rate: float = Field(2e-3, gt=0)
        """Learning rate of the generator (Adam); it decreases to 0 along half a cosine."""

    config: Config

    def __init__(self, config: StrictModel) -> None:
        super().__init__(config)
        validate(ARCHITECTURES.get(GENERATOR).Config, self.config.generator, f"architecture {GENERATOR!r}")
        ARCHITECTURES.entry(f"{self.config.opponent}-discriminator")
        self.inner = Passes(self.config.updates, self.config.updates)

    @property
    def passes(self) -> Passes:
        """Those of the generator, one on its examples, and one on the clean images."""
        own = self.config.updates + (2 if self.config.clean_weight else 1)
        return Passes(own, own)

    def refuse(self, threat: Threat) -> None:
        """Raises a ConfigError for a norm that perturbation generators do not support."""
        threat.refuse_other_norms(NORMS, "perturbation generators")

    def companion(self, setting: Setting) -> Generators:
        """A new generator for each threat model."""
        config = AdvGanSettings(
            **self.config.model_dump(include={"rate", *GameSettings.model_fields}),
            steps=setting.steps * self.config.updates,
            seed=setting.seed,
        )
        return Generators(
            {
                threat: AdvGanGame(config, threat, setting.shape, None, setting.device)
                for threat in setting.threats
            }
        )

    def gradients(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Trains the generator first."""
        game = self._game(x, batch)
        assert batch.threat is not None
        game.threat = batch.threat.scaled(batch.growth(self.config.eps_warmup))
        with evaluation_mode(model):
            for _ in range(self.config.updates):
                game.train_step(model, x, y)
        loss, logits = self._loss(model, x, y, game)
        loss.backward()
        return loss.detach(), logits.detach()

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropies, and the logits on the current generator's examples."""
        return self._loss(model, x, y, self._game(x, batch))

    def _loss(self, model: nn.Module, x: Tensor, y: Tensor, game: AdvGanGame) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), evaluation_mode(game.generator):
            examples = moved(game.threat, x, query(game.generator, x))
        logits, smoothing = model(examples), self.config.label_smoothing
        loss = cross_entropy(logits, y, label_smoothing=smoothing)
        share = self.config.clean_weight
        if share:
            loss = (1 - share) * loss + share * cross_entropy(model(x), y, label_smoothing=smoothing)
        return loss, logits

    def _game(self, x: Tensor, batch: Batch) -> AdvGanGame:
        """The run's game; a new one for a single batch outside a run."""
        assert batch.threat is not None  # ensured by the loop
        companion = batch.companion
        if companion is None:
            shape = (x.shape[1], x.shape[2], x.shape[3])
            companion = self.companion(Setting(shape, (batch.threat,), batch.steps, batch.seed, x.device))
        assert isinstance(companion, Generators)
        return companion.games[batch.threat]
