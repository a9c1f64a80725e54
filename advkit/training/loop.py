"""The loop that trains classifiers, whatever the objective.

Every random number is a function of (seed, update), so the state of a run is its weights, their average,
the optimiser's moments, the best so far and the number of updates: a run that is resumed ends with the same
weights and the same metrics, bit for bit on one machine.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from advkit import memory, rng
from advkit.attacks.perturb import logits_of, robust_correct
from advkit.data.augment import coarsen, shift_and_flip
from advkit.data.data import Data
from advkit.errors import ConfigError
from advkit.models.mode import evaluation_mode
from advkit.models.model import Model
from advkit.progress import SILENT, Progress
from advkit.runs import RunFolder
from advkit.threat import Threat
from advkit.training.diverged import stop_if_diverged
from advkit.training.ema import Ema
from advkit.training.extra import Mixed, fitting
from advkit.training.objective import Batch, Objective
from advkit.training.plan import Fitting
from advkit.training.schedule import factor

LOOK_EVERY = 1.0
"""Seconds between looks at the loss; every look waits for the device."""
SAVE_EVERY = 60.0
"""Seconds after which a state to resume is written between two checks, too."""
ATTACKER = {"steps": 10}
"""The PGD whose robust accuracy on held-out images chooses the best checkpoint."""


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
    """Accuracies of ``best`` on the held-out images: ``clean``, and ``robust`` where there is a threat."""
    history: list[dict[str, Any]] = field(repr=False)
    """A row per check: step, epoch, loss and accuracy on training batches, and the scores."""
    images_per_second: float
    """Of training alone; 0 when there was nothing left to do."""


class Trainer:
    """Model, optimiser and the update; what is saved is `state`.

    Args:
        model: trained in place.
        config: how to train.
        data: images to learn.
        objective: what to minimise.
        threat: what the attacker may change.
        device: where to work.
        rates: factors of the learning rate for parameters whose names begin so.
        extra: more images, a share of every batch, as `advkit.training.extra.fitting` returns them.
    """

    def __init__(
        self,
        model: Model,
        config: Fitting,
        data: Data,
        objective: Objective,
        threat: Threat | None,
        device: torch.device,
        rates: Mapping[str, float],
        extra: Data | None = None,
    ) -> None:
        self.config, self.objective, self.threat = config, objective, threat
        self.device = device
        self.model: Model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        _train_mode(self.model)
        self.ema = Ema(self.model, config.ema) if config.ema else None
        self.optimiser = _optimiser(self.model, config, rates, fused=device.type in ("cpu", "cuda"))
        self.images = Mixed(config, data, extra)
        self.step, self.steps = 0, config.updates(len(data))
        self.sums = torch.zeros(2, device=device)
        """Loss and accuracy, summed over the updates since `since`."""
        self.since = 0
        self.best: dict[str, Any] | None = None

    @property
    def candidate(self) -> Model:
        """The model that is checked and kept: the average where there is one."""
        return self.model if self.ema is None else self.ema.network

    def update(self) -> None:
        """One update; nothing here waits for the device."""
        config = self.config
        x, y, ids = self.images.batch(self.step, self.device)
        x = shift_and_flip(x, ids, self.step, config.seed, shift=config.shift, flip=config.flip)
        x = coarsen(x, ids, self.step, config.seed, side=config.coarse)
        x = x.contiguous(memory_format=torch.channels_last)
        share = factor(config.schedule, self.step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = config.rate * group["factor"] * share
        self.optimiser.zero_grad(set_to_none=True)
        batch = Batch(ids, self.step, self.steps, config.seed, self.threat)
        with rng.scope(self.device, config.seed, "update", self.step):
            loss, logits = self.objective.gradients(self.model, x, y, batch)
        self.optimiser.step()
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        self.sums += torch.stack([loss, (logits.argmax(1) == y).float().mean()])
        self.step += 1

    def look(self) -> dict[str, float]:
        """Mean loss and accuracy since the last check.

        Raises:
            DivergedError: the loss is not finite.
        """
        loss, accuracy = (self.sums / (self.step - self.since)).tolist()
        remedy = f"try a smaller --rate (it was {self.config.rate:g})"
        stop_if_diverged(f"update {self.step} of {self.steps}", {"the loss": loss}, remedy)
        return {"loss": loss, "accuracy": accuracy}

    def check(self, held: Data | None) -> dict[str, float]:
        """Accuracies on the held-out images; remembers the best weights, the later of equals."""
        self.sums.zero_()
        self.since = self.step
        if held is None:
            return {}
        scores = _scores(self.candidate, held, self.threat, self.config)
        rank = [scores.get("robust", 0.0), scores["clean"]]
        if self.best is None or rank >= self.best["rank"]:
            weights = {name: value.clone() for name, value in self.candidate.state_dict().items()}
            self.best = {"rank": rank, "scores": scores, "step": self.step, "weights": weights}
        return scores

    def state(self) -> dict[str, Any]:
        """Everything a resume needs."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "sums": self.sums,
            "since": self.since,
            "best": self.best,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.network.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.sums.copy_(state["sums"])
        self.step, self.since, self.best = state["step"], state["since"], state["best"]

    def trained(self, history: list[dict[str, Any]], images_per_second: float) -> Trained:
        """The models as they are now."""
        self.optimiser.zero_grad(set_to_none=True)
        last = self._copy(self.candidate.state_dict())
        best = self.best
        if best is None:
            return Trained(last, last, self.step, {}, history, images_per_second)
        return Trained(
            last, self._copy(best["weights"]), best["step"], best["scores"], history, images_per_second
        )

    def _copy(self, weights: Mapping[str, Tensor]) -> Model:
        made = copy.deepcopy(self.model)
        made.load_state_dict(weights)
        return made.eval()


def fit(
    model: Model,
    config: Fitting,
    train: Data,
    held: Data | None = None,
    *,
    objective: Objective,
    extra: Data | None = None,
    threat: Threat | None = None,
    run: RunFolder | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
    rates: Mapping[str, float] | None = None,
    name: str = "training",
) -> Trained:
    """Trains a classifier.

    Args:
        model: where to begin; trained in place. Parts whose parameters need no gradient stay as they are
            and in eval mode.
        config: how to train.
        train: images to learn.
        held: images, not among those, on which the best checkpoint is chosen: by robust accuracy (PGD-10)
            if there is a threat, else by clean accuracy. None keeps the last weights.
        objective: what to minimise.
        extra: more images, of which every batch takes the share ``config.extra_fraction``.
        threat: what the attacker may change.
        run: folder for metrics and the state to resume from; None keeps nothing.
        device: where to work.
        progress: told loss, accuracies and images a second as it goes.
        rates: factors of the learning rate for parameters whose names begin so; the first that fits counts.
        name: what progress calls it.

    Raises:
        ConfigError: nothing to train, an objective without the threat it needs, a run that began with
            another model or other images, or a batch without room for extra ones.
        DataError: extra images of another shape or of other classes.
        DivergedError: the loss is no longer finite; the last state stays.
    """
    if objective.needs_threat and threat is None:
        raise ConfigError("this objective needs a threat model; give --norm and --eps (threat=...)")
    if run is not None:
        hashes = {"model": model.hash, "training images": train.fingerprint}
        run.begin_with(**hashes, **{"extra images": extra and extra.fingerprint})
    extra = extra and fitting(extra, train)
    trainer = Trainer(model, config, train, objective, threat, torch.device(device), rates or {}, extra)
    history: list[dict[str, Any]] = []
    if run is not None and (state := run.load_state()) is not None:
        trainer.restore(state)
        history = run.history()
        progress.say(f"resuming at update {trainer.step} of {trainer.steps}")
    checks = {round(trainer.steps * (i + 1) / config.checks) for i in range(config.checks)} - {0}
    size, first = trainer.images.size, trainer.step
    spent, facts = 0.0, dict[str, float]()
    with memory.kept(), progress.task(name, trainer.steps, done=first, unit="update") as task:
        told, tick = first, time.perf_counter()
        saved = tick
        while trainer.step < trainer.steps:
            trainer.update()
            due = trainer.step in checks
            if not due and time.perf_counter() - tick < LOOK_EVERY:
                continue
            row = trainer.look()
            spent += time.perf_counter() - tick
            facts |= {"loss": row["loss"], "images/s": (trainer.step - first) * size / spent}
            if due:
                scores = trainer.check(held)
                facts |= scores
                row = {"epoch": trainer.step * size / len(train), **row, **scores}
                history.append({"step": trainer.step, **row})
                if run is not None:
                    run.metrics(trainer.step, **row)
            task.advance(trainer.step - told, **facts)
            if run is not None and (due or time.perf_counter() - saved > SAVE_EVERY):
                run.save_state(trainer.state())
                saved = time.perf_counter()
            told, tick = trainer.step, time.perf_counter()
    return trainer.trained(history, (trainer.step - first) * size / spent if spent else 0.0)


def _scores(model: Model, held: Data, threat: Threat | None, config: Fitting) -> dict[str, float]:
    if threat is None:
        with evaluation_mode(model):
            correct = logits_of(model, held).argmax(1) == held.labels
        return {"clean": correct.float().mean().item()}
    correct, robust = robust_correct(model, held, threat, parameters=ATTACKER, seed=config.seed)
    return {"clean": correct.float().mean().item(), "robust": robust.float().mean().item()}


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
    """One group of parameters for each pair of rate factor and decay."""
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next((rates[start] for start in rates if name.startswith(start)), 1.0)
            decay = config.weight_decay if parameter.dim() > 1 else 0.0
            members.setdefault((rate, decay), []).append(parameter)
    if not members:
        raise ConfigError("the model has no parameters to train: all of them are frozen; unfreeze some")
    groups = [
        {"params": parameters, "factor": rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, config.rate, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, config.rate, fused=fused)
