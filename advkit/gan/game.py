"""What every kind of generative training has: networks, an EMA generator, and metrics of its samples."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from advkit import __version__
from advkit.core import distributed, rng
from advkit.core.device import arithmetic
from advkit.core.errors import ConfigError, DataError, DivergedError
from advkit.core.runs import RunFolder, now
from advkit.data.augment import Order
from advkit.data.data import Data
from advkit.gan.monitor import warnings
from advkit.gan.sample_logger import SampleLogger
from advkit.gan.settings import GanTraining
from advkit.models.card import ModelCard, Parent, Role, Shape
from advkit.models.model import Model
from advkit.models.network import Generator, Network, build
from advkit.training.ema import Ema
from advkit.training.export import store_name
from advkit.training.training import TrainedNetworks, Training, average_over_processes, multiples

FEW = 1000
"""Images that are looked at before training."""
LOG_EVERY = 50
"""Steps between rows of metrics."""


def concrete(config: GanTraining, device: torch.device) -> GanTraining:
    """The configuration with its arithmetic chosen for the device, so that a run keeps it."""
    return config.model_copy(update={"precision": arithmetic(config.precision, device)})


def _differ(data: Data) -> bool:
    """Whether two of the first `FEW` images differ."""
    images = data.images[:FEW]
    return bool((images != images[:1]).any())


class Game(TrainedNetworks, Training):
    """One kind of generative training; its EMA draws the samples.

    Raises:
        ConfigError: options that do not go with the data or with each other.
        DataError: all images are the same.
    """

    unit = "step"
    remedy = "try smaller learning rates (--rate-generator, --rate-discriminator)"
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
        self.steps, self.batch_size = config.steps, config.batch_size
        self.saves = multiples(config.checkpoint_every, self.steps)
        self.samples = multiples(config.sample_every, self.steps)
        """Steps after which samples are drawn and measured."""
        self.rows = multiples(LOG_EVERY, self.steps) | self.saves | self.samples

    @contextmanager
    def opened(self, folder: RunFolder | None) -> Iterator[None]:
        """Draws samples into the folder, in the first process."""
        self._logger = SampleLogger(self, folder if distributed.rank() == 0 else None)
        with self._logger.board:
            yield

    def evaluate(self, row: dict[str, Any], rate: float) -> None:
        """Adds the speed, and statistics of samples where these are due."""
        row["images_per_second"] = rate
        if self.step in self.samples:
            row |= distributed.share(self._logger.log() if distributed.rank() == 0 else {})
        self._logger.board.row(self.step, row)

    def warnings(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Of `advkit.gan.monitor`."""
        return warnings(rows[-1])

    def end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Raises a `DivergedError` at a collapse, if that was asked for."""
        if rows and self.config.stop_on_collapse and "collapse" in warnings(rows[-1]):
            raise DivergedError(
                f"the generator has collapsed at step {self.step}, and --stop-on-collapse was asked for; "
                "its best average so far is best.safetensors in the run folder"
            )
        return ""

    @property
    @abstractmethod
    def ema_generator(self) -> Generator:
        """The averaged generator."""

    @property
    def counted(self) -> Mapping[str, nn.Module]:
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
        return self.adam(network, rate, (self.config.beta1, self.config.beta2))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _update(self, player: str, loss: Tensor) -> None:
        """Adam's step on one network, down the gradient of its loss."""
        self.optimisers[player].zero_grad()
        loss.backward()
        average_over_processes(self.networks[player])
        self.optimisers[player].step()

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
