"""Model, optimiser, average and the update of a classifier's training, and the state that a resume needs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from advkit.core import distributed, rng
from advkit.core.device import arithmetic
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.data.augment import coarsen, shift_and_flip
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.training.diverged import stop_if_diverged
from advkit.training.ema import Ema
from advkit.training.extra import Mixed
from advkit.training.objective import Batch, Objective, Setting
from advkit.training.optimiser import optimiser
from advkit.training.precision import Bfloat16
from advkit.training.schedule import factor
from advkit.training.settings import Fitting, Several
from advkit.training.several import gradients


@dataclass(frozen=True)
class Trained:
    """What training leaves; both models are copies in eval mode, averaged where the run averages."""

    model: Model
    """With the last weights."""
    best: Model
    """With the weights of the best check; the last ones where nothing was held out."""
    step: int
    """Updates behind ``best``."""
    scores: dict[str, float]
    """Accuracies of ``best`` on the held-out images: ``clean``, and the objective's own criterion or, where
    there is a threat, ``robust``."""
    companions: dict[str, Model]
    """What the objective trained beside it, by what is added to the classifier's name."""
    history: list[dict[str, Any]] = field(repr=False)
    """A row per check: step, epoch, loss and accuracy on training batches, and the scores."""
    images_per_second: float
    """Of training alone; 0 when there was nothing left to do."""


class Trainer:
    """Every random number is a function of (seed, update); what is saved is `state`.

    Several processes train on a share of every batch each; gradients, and the statistics of batch norm,
    become the means over all of them.

    Args:
        model: trained in place.
        config: how to train.
        data: images to learn.
        objective: what to minimise.
        threats: what the attacker may change.
        device: where to work.
        rates: factors of the learning rate for parameters whose names begin so.
        extra: more images, a share of every batch, as `advkit.training.extra.fitting` returns them.
        union: how several threat models count.

    Raises:
        ConfigError: nothing to train, or a batch that the processes cannot share out.
    """

    def __init__(
        self,
        model: Model,
        config: Fitting,
        data: Data,
        objective: Objective,
        threats: Sequence[Threat],
        device: torch.device,
        rates: Mapping[str, float],
        extra: Data | None = None,
        union: Several = "max",
    ) -> None:
        self.config, self.objective, self.threats, self.union = config, objective, threats, union
        self.device = device
        self.model: Model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        _train_mode(self.model)
        low = arithmetic(config.precision, device) == "bfloat16"
        self.seen: nn.Module = Bfloat16(self.model) if low else self.model
        """The model as the objective sees it."""
        self.ema = Ema(self.model, config.ema) if config.ema else None
        self.optimiser = optimiser(self.model, config, rates, fused=device.type in ("cpu", "cuda"))
        self.images = Mixed(config, data, extra)
        if self.images.size % distributed.world():
            raise ConfigError(
                f"a batch of {self.images.size} images is no multiple of the {distributed.world()} processes "
                "at work; choose another --batch-size"
            )
        self.step, self.steps = 0, config.updates(len(data))
        self.memory: dict[str, Tensor] = {}
        """What the objective keeps from update to update."""
        setting = Setting(data.shape, tuple(threats), self.steps, config.seed, device)
        self.companion = objective.companion(setting)
        self.sums = torch.zeros(2, device=device)
        """Loss and accuracy, summed over the updates since `since`."""
        self.since = 0
        self.best: dict[str, Any] | None = None
        self.waited = 0
        """Checks since the last one that was better than all before."""

    @property
    def candidate(self) -> Model:
        """The model that is checked and kept: the average where there is one."""
        return self.model if self.ema is None else self.ema.network

    def update(self) -> None:
        """One update; nothing here waits for the device."""
        config = self.config
        x, y, ids = self._batch(self.step // self.objective.replays)
        share = factor(config.schedule, self.step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = config.rate * group["factor"] * share
        self.optimiser.zero_grad(set_to_none=True)
        batch = Batch(ids, self.step, self.steps, config.seed, memory=self.memory, companion=self.companion)
        with self._randomness():
            loss, logits = gradients(self.objective, self.seen, x, y, batch, self.threats, self.union)
        if distributed.world() > 1:
            self._meet()
        self.optimiser.step()
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        self.sums += torch.stack([loss, (logits.argmax(1) == y).float().mean()])
        self.step += 1

    def _batch(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """This process's share of batch ``number``: images, labels and ids."""
        config, world = self.config, distributed.world()
        whole = self.images.batch(number, self.device)
        x, y, ids = (part[distributed.rank() :: world] for part in whole) if world > 1 else whole
        x = shift_and_flip(x, ids, number, config.seed, shift=config.shift, flip=config.flip)
        x = coarsen(x, ids, number, config.seed, side=config.coarse)
        return x.contiguous(memory_format=torch.channels_last), y, ids

    @contextmanager
    def _randomness(self) -> Iterator[None]:
        """Dropout and the like draw from the seed, the update and, beside others, the process."""
        others = (distributed.rank(),) if distributed.world() > 1 else ()
        with rng.scope(self.device, self.config.seed, "update", self.step, *others):
            yield

    def _meet(self) -> None:
        """The means over all processes of gradients and running statistics."""
        distributed.average(p.grad for p in self.model.parameters() if p.grad is not None)
        distributed.average(buffer for buffer in self.model.buffers() if buffer.is_floating_point())

    def look(self, *, together: bool) -> dict[str, float]:
        """Mean loss and accuracy since the last check, of all processes or of this one alone.

        Raises:
            DivergedError: the loss is not finite.
        """
        means = self.sums / (self.step - self.since)
        if together:
            distributed.average([means])
        loss, accuracy = means.tolist()
        remedy = f"try a smaller --rate (it was {self.config.rate:g})"
        stop_if_diverged(f"update {self.step} of {self.steps}", {"the loss": loss}, remedy)
        return {"loss": loss, "accuracy": accuracy}

    def checked(self, scores: Mapping[str, float]) -> None:
        """Remembers the weights if their scores are the best so far, the later of equals; a new mean begins.

        Args:
            scores: of the candidate on held-out images, the last of which counts most; empty where there are
                none.
        """
        self.sums.zero_()
        self.since = self.step
        if not scores:
            return
        rank = list(scores.values())[::-1]
        self.waited = 0 if self.best is None or rank > self.best["rank"] else self.waited + 1
        if self.best is None or rank >= self.best["rank"]:
            weights = {name: value.clone() for name, value in self.candidate.state_dict().items()}
            self.best = {"rank": rank, "scores": dict(scores), "step": self.step, "weights": weights}

    def state(self) -> dict[str, Any]:
        """Everything a resume needs, the same in all processes; all must ask."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "memory": {name: _whole(rows) for name, rows in self.memory.items()},
            "companion": None if self.companion is None else self.companion.state(),
            "sums": self.sums,
            "since": self.since,
            "best": self.best,
            "waited": self.waited,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.network.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        mine = slice(distributed.rank(), None, distributed.world())
        self.memory = {name: rows[mine].to(self.device) for name, rows in state["memory"].items()}
        if self.companion is not None:
            self.companion.restore(state["companion"])
        self.sums.copy_(state["sums"])
        self.step, self.since, self.best = state["step"], state["since"], state["best"]
        self.waited = state["waited"]

    def trained(self, history: list[dict[str, Any]], images_per_second: float) -> Trained:
        """The models as they are now."""
        self.optimiser.zero_grad(set_to_none=True)
        last = self._copy(self.candidate.state_dict())
        beside = {} if self.companion is None else self.companion.models()
        best = self.best
        if best is None:
            return Trained(last, last, self.step, {}, beside, history, images_per_second)
        kept = self._copy(best["weights"])
        return Trained(last, kept, best["step"], best["scores"], beside, history, images_per_second)

    def _copy(self, weights: Mapping[str, Tensor]) -> Model:
        made = copy.deepcopy(self.model)
        made.load_state_dict(weights)
        return made.eval()


def _whole(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of the batch."""
    if distributed.world() == 1:
        return rows
    shares = distributed.gather(rows.cpu())
    return torch.stack(shares, 1).flatten(0, 1)


def _train_mode(model: nn.Module) -> None:
    """Train mode, but for the parts that are frozen: no dropout there, and no running statistics move."""
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
