"""What the training loop trains: networks, their optimisers and average, and the step.

Every random number is a function of (seed, step), so the state of a training is its weights, their average,
the optimisers' moments and the step: a run that is resumed ends with the same weights, bit for bit on one
machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from advkit.core import distributed, rng
from advkit.core.runs import RunFolder
from advkit.training.ema import Ema


@dataclass(frozen=True)
class Course:
    """How a training went."""

    history: list[dict[str, Any]] = field(repr=False)
    """Rows of metrics: step, the means of the figures since the row before, and what was measured."""
    warnings: list[str]
    """The first of each kind, with its step."""
    images_per_second: float
    """Of training alone; 0 when there was nothing left to do."""
    resumed_at: int
    """Step at which this process began; 0 when it was the first."""


class TrainedNetworks:
    """Networks that are trained, the first of them perhaps with an average.

    Attributes:
        networks: by the names under which their states are kept.
        optimisers: by the same names; each group of parameters has its peak learning rate as ``peak``.
        ema: the exponential moving average (EMA) of a network; None: there is none.
        step: steps done so far.
        device: where the networks are.
    """

    networks: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    ema: Ema[Any] | None = None
    step: int = 0
    device: torch.device

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs, the same in all processes; all must ask."""
        return {
            "step": self.step,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "ema": None if self.ema is None else self.ema.network.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
            self.optimisers[name].load_state_dict(state["optimisers"][name])
        if self.ema is not None:
            self.ema.network.load_state_dict(state["ema"])
        self.step = state["step"]

    def adam(self, network: nn.Module, rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
        """Adam on all parameters of a network, with ``rate`` as its peak."""
        groups = [{"params": list(network.parameters()), "peak": rate}]
        return torch.optim.Adam(groups, rate, betas, fused=self.device.type in ("cpu", "cuda"))

    def set_rates(self, share: float) -> None:
        """All learning rates become ``share`` of their peaks."""
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share

    @contextmanager
    def randomness(self, seed: int, purpose: str) -> Iterator[None]:
        """Dropout and the like draw from the seed, the step and, beside others, the process."""
        others = (distributed.rank(),) if distributed.world() > 1 else ()
        with rng.scope(self.device, seed, purpose, self.step, *others):
            yield


def average_over_processes(network: nn.Module) -> None:
    """Gradients and running statistics become the means over all processes, which share the batch."""
    distributed.average(p.grad for p in network.parameters() if p.grad is not None)
    distributed.average(buffer for buffer in network.buffers() if buffer.is_floating_point())


class Training(ABC):
    """What `advkit.training.loop.repeat` repeats, and what it asks at the rows of metrics.

    Attributes:
        device: where the figures are.
        figures: names of what `update` returns; of those, the losses have "loss" in their names.
        shown: figures that progress shows, by what it calls them.
        shares: those of them that are shown in per cent.
        unit: what a step is called.
        steps: how many there will be.
        batch_size: images of a step, in all processes.
        rows: steps after which a row of metrics is written.
        saves: those of them after which a state to resume from is written.
        remedy: what to do when the losses are no longer finite.
    """

    device: torch.device
    figures: ClassVar[tuple[str, ...]]
    shown: Mapping[str, str]
    shares: Collection[str] = ()
    unit: ClassVar[str] = "update"
    steps: int
    batch_size: int
    rows: Collection[int]
    saves: Collection[int]
    remedy: str

    @property
    @abstractmethod
    def step(self) -> int:
        """Steps done so far."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that a resume needs: tensors and plain types; all processes must ask."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave."""

    @abstractmethod
    def update(self) -> Tensor:
        """One step; returns its figures (len(figures),), on the device, without waiting for it."""

    def opened(self, folder: RunFolder | None) -> AbstractContextManager[object]:
        """Entered before the first step of this process, after `restore`; ``folder`` is that of the run."""
        return nullcontext()

    def evaluate(self, row: dict[str, Any], rate: float) -> None:  # noqa: B027 (some measure nothing)
        """Adds to a row what is measured at this step.

        Args:
            row: the means of the figures since the row before.
            rate: images a second of training so far.
        """

    def warnings(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """What goes wrong at the last of these rows, by kind: what is seen and what to try, for a person."""
        return {}

    def end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Why training ends after these rows, before its last step; empty: it goes on."""
        return ""


def multiples(every: int, steps: int) -> set[int]:
    """Every so many steps, and the last."""
    return {*range(every, steps, every), steps}


def evenly(count: int, steps: int) -> set[int]:
    """So many steps, evenly spread; the last one is among them."""
    return {round(steps * (i + 1) / count) for i in range(count)} - {0}
