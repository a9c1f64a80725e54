"""Black-box AdvGAN: a distilled copy of the classifier, trained before and during the generator's training
(Xiao et al. 2018, section 3.3, in rounds rather than at every update)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advkit.attacks.engine.search_model import search_model
from advkit.attacks.perturb import device_of, logits_of
from advkit.core import images, rng
from advkit.core.errors import DataError
from advkit.core.progress import SILENT, Progress
from advkit.data.data import Data
from advkit.models.model import Model, evaluation_mode
from advkit.trained_attacks.generators.game import AdvGanGame, Victim
from advkit.trained_attacks.generators.judge import generate
from advkit.trained_attacks.generators.settings import AdvGanSettings
from advkit.trained_attacks.transfer.copied import FILE, fresh, gather, train_copy
from advkit.trained_attacks.transfer.queries import BlackBox, Queries
from advkit.trained_attacks.transfer.settings import SubstituteTraining

UPDATES = 300
"""Updates of the copy in each round after the first."""


def frozen_copy(model: Model, data: Data) -> nn.Module:
    """The search model of ``model``, whose parameters require no gradients."""
    few, _ = data.batch(torch.arange(min(16, len(data))), device_of(model))
    return search_model(model, "float32", few, "gradients")


class Distilled(Victim):
    """A copy that replaces the black box in training.

    Args:
        learn: real images for queries; their labels are not used.
        folder: of the stored answers; stored queries are not repeated.

    Raises:
        ConfigError: unknown names, or an architecture that is not a classifier.
    """

    def __init__(
        self,
        model: Model,
        learn: Data,
        config: AdvGanSettings,
        device: torch.device,
        *,
        folder: Path | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.config, self.learn, self.device, self.folder, self.progress = (
            config,
            learn,
            device,
            folder,
            progress,
        )
        self.rounds = config.rounds if config.black_box == "dynamic" else 1
        first = config.queries if self.rounds == 1 else config.queries // 2
        self.copying = SubstituteTraining(
            model="", queries=first, copy_arch=config.copy_arch, answers=config.answers, seed=config.seed
        )
        self.copy = fresh(self.copying, learn).to(device)
        self.box = BlackBox(model, config.answers, config.queries)
        opening = BlackBox(model, config.answers, first)
        self.queries = gather(opening, learn, self.copying, None, folder=folder, progress=SILENT)
        self.box.asked = len(self.queries)
        self.real = int(self.queries.counts()["real"])
        self.round = 0
        """Number of trainings of the copy."""
        self._network: nn.Module | None = None

    def images(self, target: int | None) -> Data:
        """The queried real images with answers as labels, without those of the target class.

        Raises:
            DataError: there are none.
        """
        asked = self.queries.data(self.learn.class_names).limit(self.real, first=True)
        index = (asked.labels != (-1 if target is None else target)).nonzero()[:, 0]
        if len(index) == 0:
            raise DataError(
                f"all of the {self.real} images are classified as the target class; choose another"
            )
        return asked.take(index)

    def ready(self, game: AdvGanGame) -> nn.Module:
        """The copy, after further training where a round is due."""
        while self.round < self.rounds and game.step >= self._first_update(self.round):
            if self.round > 0:
                self._query_adversarial(game)
            self._train()
            self.round += 1
            self._network = None
        if self._network is None:
            self._network = frozen_copy(self.copy.eval(), self.learn)
        return self._network

    def _first_update(self, number: int) -> int:
        """The update before which round ``number`` of the copy runs."""
        return self.config.steps * number // self.rounds

    def _query_adversarial(self, game: AdvGanGame) -> None:
        """Queries adversarial images of the current generator."""
        if self.queries.counts()["adversarial"] >= self._adversarial(self.round):
            return  # done by an earlier process that stopped before training on the answers
        n = self._adversarial(self.round) - self._adversarial(self.round - 1)
        index = rng.permutation(self.config.seed, "rounds", self.real, self.round)[:n]
        base = self.queries.data(self.learn.class_names).take(index)
        x, _ = generate(game.best(), base, game.threat, self.device)
        self.queries = self.queries.joined(Queries.collect(self.box, [(images.to_uint8(x), "adversarial")]))
        if self.folder is not None:
            self.queries.save(self.folder / FILE)

    def _adversarial(self, number: int) -> int:
        """Queries of adversarial images before round ``number``, in total."""
        return min(self.real, (self.config.queries - self.real) // (self.rounds - 1)) * number

    def _train(self) -> None:
        config = self.copying
        if self.round > 0:
            batches = config.batches(self.real + self._adversarial(self.round))
            seed = rng.derive(config.seed, "round", self.round) % 2**31
            config = config.model_copy(update={"epochs": -(-UPDATES // batches), "seed": seed})
        # Queries that an earlier process made in later rounds are used in those rounds.
        queries = self.queries.first(self.real + (self._adversarial(self.round) if self.round else 0))
        self.progress.say(f"training the copy on {len(queries):,} answers")
        trained = train_copy(self.copy, queries, self.learn.class_names, config, device=self.device)
        self.copy = trained.model

    def facts(self, model: Model, test: Data) -> dict[str, Any]:
        """Queries, and the agreement of the copy, for results."""
        with evaluation_mode(model), evaluation_mode(self.copy):
            mine, theirs = (logits_of(each, test).argmax(1) for each in (self.copy, model))
        return {
            "mode": self.config.black_box,
            "answers": self.config.answers,
            "limit": self.config.queries,
            "asked": {origin: count for origin, count in self.queries.counts().items() if count},
            "agreed": int((mine == theirs).sum()),
        }

    def state(self) -> dict[str, Any]:
        """The copy; the answers have their own file."""
        return {"round": self.round, "copy": self.copy.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the result of `state`."""
        self.round = state["round"]
        self.copy.load_state_dict(state["copy"])
        self._network = None
