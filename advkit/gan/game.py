"""What every kind of generative training has: networks, optimisers, an EMA generator, and a training step.

Every random number is a function of (seed, step), so the state of a run is its weights, the optimisers'
moments and the step: a run that is resumed ends with the same weights, bit for bit on one machine.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from advkit import __version__
from advkit.core import distributed, rng
from advkit.core.device import arithmetic
from advkit.core.errors import ConfigError, DataError
from advkit.core.runs import now
from advkit.data.augment import Order
from advkit.data.data import Data
from advkit.gan.settings import GanTraining
from advkit.models.card import ModelCard, Parent, Role, Shape
from advkit.models.model import Model
from advkit.models.network import Generator, Network, build
from advkit.training.ema import Ema
from advkit.training.export import store_name
from advkit.training.schedule import factor

FEW = 1000
"""Images that are looked at before training."""


def concrete(config: GanTraining, device: torch.device) -> GanTraining:
    """The configuration with its arithmetic chosen for the device, so that a run keeps it."""
    return config.model_copy(update={"precision": arithmetic(config.precision, device)})


def _differ(data: Data) -> bool:
    """Whether two of the first `FEW` images differ."""
    images = data.images[:FEW]
    return bool((images != images[:1]).any())


class Game(ABC):
    """Networks, optimisers and the step.

    Args:
        config: the run's configuration.
        data: images to learn.
        device: where to work.

    Attributes:
        figures: names of what `train_step` returns.
        networks: those that are trained, by the names under which they are kept.
        optimisers: one for each network.
        ema: the exponential moving average (EMA) that draws the samples.
        step: training steps done so far.
    """

    figures: ClassVar[tuple[str, ...]]
    networks: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Adam]
    ema: Ema[Any]

    def __init__(self, config: GanTraining, data: Data, device: torch.device) -> None:
        if len(data) < config.batch_size:
            raise ConfigError(
                f"batch size {config.batch_size} is larger than the {len(data)} images of {data.name!r}; "
                "give a smaller --batch-size"
            )
        if not _differ(data):
            raise DataError(
                f"the images of {data.name!r} are all the same, so there is nothing to learn from them; "
                "look at the file that they come from"
            )
        self.config, self.data, self.device = concrete(config, device), data, device
        pieces = config.packing * distributed.world()
        if config.batch_size % pieces:
            raise ConfigError(
                f"a batch of {config.batch_size} images is no multiple of {pieces} (packing "
                f"{config.packing}, {distributed.world()} at work); choose another --batch-size"
            )
        self.order = Order(len(data), config.batch_size, config.seed)
        self.name = store_name(config.name, data.name, config.arch)
        self.step = 0

    @abstractmethod
    def train_step(self) -> Tensor:
        """One step; returns its figures (len(figures),), on the device."""

    @property
    @abstractmethod
    def ema_generator(self) -> Generator:
        """The averaged generator."""

    @property
    def counted(self) -> dict[str, nn.Module]:
        """Networks whose passes are counted, by the names of the networks that they represent."""
        return self.networks

    @property
    def classes(self) -> int | None:
        """Classes that one can ask the generator for."""
        return None

    @abstractmethod
    def average(self) -> Model:
        """The averaged generator as it is now, a copy with its card."""

    @abstractmethod
    def models(self) -> dict[str, Model]:
        """What training leaves, as copies with cards, by the names under which they are kept; "ema" is
        `average`."""

    def latent(self, ids: Tensor, stream: str, step: int = 0) -> Tensor:
        """(N, latent_dim) latent vectors of one purpose and step, by their numbers (N,)."""
        return self.ema_generator.draw(rng.keys(self.config.seed, stream, ids.to(self.device), step))

    @property
    def ids(self) -> Tensor:
        """Which places in a batch this process fills: every so-many-th, all where it is alone."""
        return torch.arange(distributed.rank(), self.config.batch_size, distributed.world())

    def batch(self, number: int, order: Order | None = None) -> tuple[Tensor, Tensor]:
        """This process's share of batch ``number`` of real images, and their classes."""
        rows = (order or self.order).batch(number)[self.ids]
        images, labels = self.data.batch(rows, self.device)
        return images.contiguous(memory_format=torch.channels_last), labels

    @contextmanager
    def _randomness(self) -> Iterator[None]:
        """Dropout and the like draw from the seed, the step and, beside others, the process."""
        others = (distributed.rank(),) if distributed.world() > 1 else ()
        with rng.scope(self.device, self.config.seed, "step", self.step, *others):
            yield

    def state(self) -> dict[str, Any]:
        """Everything a resume needs."""
        return {
            "step": self.step,
            "networks": {name: network.state_dict() for name, network in self._all().items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave."""
        for name, network in self._all().items():
            network.load_state_dict(state["networks"][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.step = state["step"]

    def _all(self) -> dict[str, nn.Module]:
        return {**self.networks, "ema": self.ema.network}

    def _build(
        self,
        architecture: str,
        parameters: Mapping[str, Any],
        purpose: str,
        *,
        shape: Shape | None = None,
        classes: int | None = None,
    ) -> Network:
        with rng.scope("cpu", self.config.seed, "init", purpose):
            network = build(
                architecture, shape=shape or self.data.shape, classes=classes, config=dict(parameters)
            )
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _averaged(self, network: nn.Module) -> Ema[Any]:
        half_life = self.config.ema / self.config.batch_size
        return Ema(network, 0.5 ** (1 / half_life) if half_life else 0.0)

    def _adam(self, network: nn.Module, rate: float) -> torch.optim.Adam:
        betas = (self.config.beta1, self.config.beta2)
        fused = self.device.type in ("cpu", "cuda")
        optimiser = torch.optim.Adam(network.parameters(), rate, betas, fused=fused)
        for group in optimiser.param_groups:
            group["peak"] = rate
        return optimiser

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _update(self, player: str, loss: Tensor) -> None:
        optimiser = self.optimisers[player]
        share = factor(self.config.schedule, self.step, self.config.steps)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        distributed.average(parameter.grad for parameter in parameters if parameter.grad is not None)
        optimiser.step()
        if distributed.world() > 1:  # each has normalised its own share of the batch
            buffers = self.networks[player].buffers()
            distributed.average(buffer for buffer in buffers if buffer.is_floating_point())

    def _model(
        self,
        network: nn.Module,
        role: Role,
        architecture: str,
        parameters: Mapping[str, Any],
        *parents: Parent,
        shape: Shape | None = None,
        classes: int | None = None,
    ) -> Model:
        card = ModelCard(
            role=role,
            architecture=architecture,
            config=dict(parameters),
            shape=shape or self.data.shape,
            classes=classes,
            labels=self.data.class_names if classes else (),
            data=self.data.facts,
            lineage=parents,
            training={"command": "gan-train", **self.config.model_dump(mode="json"), "step": self.step},
            created=now(),
            advkit=__version__,
        )
        return Model(copy.deepcopy(network), card).eval()  # the original goes on in train mode
