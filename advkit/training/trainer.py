"""Training of a classifier: its batches, its update, and its best checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from advkit.core import distributed
from advkit.core.device import arithmetic
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.data.augment import coarsen, shift_and_flip
from advkit.data.data import Data
from advkit.models.model import Model
from advkit.training.ema import Ema
from advkit.training.extra import Mixed
from advkit.training.monitor import warnings
from advkit.training.objective import Batch, Objective, Setting
from advkit.training.precision import Bfloat16
from advkit.training.schedule import factor
from advkit.training.score import measured, scores
from advkit.training.settings import Fitting, Several
from advkit.training.several import gradients
from advkit.training.training import Course, TrainedNetworks, Training, average_over_processes, evenly


@dataclass(frozen=True)
class Trained(Course):
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


class Trainer(TrainedNetworks, Training):
    """Several processes train on a share of every batch each; gradients, and the statistics of batch norm,
    become the means over all of them. Arguments as in `advkit.training.loop.fit`, ``threats`` together and
    ``extra`` as `advkit.training.extra.fitting` returns it.

    Raises:
        ConfigError: nothing to train, or a batch that the processes cannot share out.
    """

    figures = ("loss", "accuracy")

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
        *,
        held: Data | None = None,
        patience: int | None = None,
    ) -> None:
        self.config, self.objective, self.threats, self.union = config, objective, threats, union
        self.data, self.held, self.patience, self.device = data, held, patience, device
        self.model: Model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        _train_mode(self.model)
        low = arithmetic(config.precision, device) == "bfloat16"
        self.seen: nn.Module = Bfloat16(self.model) if low else self.model
        """The model as the objective sees it."""
        self.networks = {"model": self.model}
        self.optimisers = {
            "model": _optimiser(self.model, config, rates, fused=device.type in ("cpu", "cuda"))
        }
        self.ema = Ema(self.model, config.ema) if config.ema else None
        self.images = Mixed(config, data, extra)
        self.batch_size = self.images.size
        if self.batch_size % distributed.world():
            raise ConfigError(
                f"a batch of {self.batch_size} images is no multiple of the {distributed.world()} processes "
                "at work; choose another --batch-size"
            )
        self.steps = config.updates(len(data))
        self.rows = self.saves = evenly(config.checks, self.steps)
        self.remedy = f"try a smaller --rate (it was {config.rate:g})"
        decisive = objective.criterion or "robust"
        self.shares = ("clean", decisive, f"train_{decisive}")
        self.shown = {name: name for name in ("loss", *self.shares)}
        self.memory: dict[str, Tensor] = {}
        """What the objective keeps from update to update."""
        setting = Setting(data.shape, tuple(threats), self.steps, config.seed, device)
        self.companion = objective.companion(setting)
        self.best: dict[str, Any] | None = None
        self.waited = 0
        """Checks since the last one that was better than all before."""

    @property
    def candidate(self) -> Model:
        """The model that is checked and kept: the average where there is one."""
        return self.model if self.ema is None else self.ema.network

    def update(self) -> Tensor:
        """One update; the loss and the accuracy on the batch."""
        config = self.config
        x, y, ids = self._batch(self.step // self.objective.replays)
        self.set_rates(factor(config.schedule, self.step, self.steps))
        self.optimisers["model"].zero_grad()
        batch = Batch(ids, self.step, self.steps, config.seed, memory=self.memory, companion=self.companion)
        with self.randomness(config.seed, "update"):
            loss, logits = gradients(self.objective, self.seen, x, y, batch, self.threats, self.union)
        average_over_processes(self.model)
        self.optimisers["model"].step()
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        self.step += 1
        return torch.stack([loss, (logits.argmax(1) == y).float().mean()])

    def _batch(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """This process's share of batch ``number``: images, labels and ids."""
        config, world = self.config, distributed.world()
        whole = self.images.batch(number, self.device)
        x, y, ids = (part[distributed.rank() :: world] for part in whole) if world > 1 else whole
        x = shift_and_flip(x, ids, number, config.seed, shift=config.shift, flip=config.flip)
        x = coarsen(x, ids, number, config.seed, side=config.coarse)
        return x.contiguous(memory_format=torch.channels_last), y, ids

    def evaluate(self, row: dict[str, Any], rate: float) -> None:
        """Adds the candidate's scores on held-out images and, to show robust overfitting, the decisive one on
        as many training images; remembers the best weights."""
        row["epoch"] = self.step * self.batch_size / len(self.data)
        if self.held is None:
            return
        found = self._scores(self.held)
        self._keep_best(found)
        row |= found
        if self.threats or self.objective.criterion:
            decisive = list(found)[-1]
            row[f"train_{decisive}"] = self._scores(self.data.limit(len(self.held)))[decisive]

    def _scores(self, images: Data) -> dict[str, float]:
        """What counts most is the last."""
        if self.objective.criterion:
            return measured(self.candidate, images, self.objective, self.threats, self.config.seed)
        return scores(self.candidate, images, self.threats, self.config.seed)

    def _keep_best(self, scores: Mapping[str, float]) -> None:
        """Remembers the weights if their scores are the best so far, the later of equals."""
        rank = list(scores.values())[::-1]
        self.waited = 0 if self.best is None or rank > self.best["rank"] else self.waited + 1
        if self.best is None or rank >= self.best["rank"]:
            weights = {name: value.clone() for name, value in self.candidate.state_dict().items()}
            self.best = {"rank": rank, "scores": dict(scores), "step": self.step, "weights": weights}

    def warnings(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Of `advkit.training.monitor`."""
        return warnings(rows, self.data.classes)

    def end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """When patience is at an end."""
        if self.patience is None or self.waited < self.patience:
            return ""
        return f"{self.patience} checks without a better"

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs, the same in all processes; all must ask."""
        return {
            **super().state(),
            "memory": {name: _whole(rows) for name, rows in self.memory.items()},
            "companion": None if self.companion is None else self.companion.state(),
            "best": self.best,
            "waited": self.waited,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave."""
        super().restore(state)
        mine = slice(distributed.rank(), None, distributed.world())
        self.memory = {name: rows[mine].to(self.device) for name, rows in state["memory"].items()}
        if self.companion is not None:
            self.companion.restore(state["companion"])
        self.best, self.waited = state["best"], state["waited"]

    def trained(self, course: Course) -> Trained:
        """The models as they are now."""
        self.optimisers["model"].zero_grad()
        last = best = self._copy(self.candidate.state_dict())
        step, scores = self.step, dict[str, float]()
        if self.best is not None:
            best, step, scores = self._copy(self.best["weights"]), self.best["step"], self.best["scores"]
        companions = {} if self.companion is None else self.companion.models()
        return Trained(**vars(course), model=last, best=best, step=step, scores=scores, companions=companions)

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


def _optimiser(
    model: nn.Module, config: Fitting, rates: Mapping[str, float], *, fused: bool
) -> torch.optim.Optimizer:
    """One group for each pair of peak rate and decay of the parameters that need a gradient."""
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next((rates[start] for start in rates if name.startswith(start)), 1.0)
            decay = config.weight_decay if parameter.dim() > 1 else 0.0
            members.setdefault((rate, decay), []).append(parameter)
    if not members:
        raise ConfigError("the model has no parameters to train: all of them are frozen; unfreeze some")
    groups = [
        {"params": parameters, "peak": config.rate * rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, config.rate, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, config.rate, fused=fused)
