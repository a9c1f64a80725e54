"""The GAN training loop: one update of every opponent, then one of the generator, a step.

Every random number is a function of (seed, step), so the state of a run is its weights, the optimisers'
moments and the step: a run that is resumed ends with the same weights, bit for bit on one machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from advkit import __version__, images, rng
from advkit.config import validate
from advkit.data.data import Data
from advkit.data.order import Order
from advkit.errors import ConfigError, did_you_mean
from advkit.gan.loss import GAN_LOSSES, GanLoss
from advkit.gan.monitor import Monitor, stop_if_diverged, warnings
from advkit.gan.plan import GanTraining
from advkit.models.card import ModelCard, Parent, Relation
from advkit.models.model import Model
from advkit.models.network import Discriminator, Generator, Network, build, pairs
from advkit.progress import SILENT, Progress
from advkit.runs import RunFolder, now
from advkit.training.deliver import store_name
from advkit.training.ema import Ema

LOG_EVERY = 50
GRID = 100


@dataclass(frozen=True)
class TrainedGan:
    """What training leaves."""

    generator: Model
    ema: Model
    opponents: Mapping[str, Model]
    images_per_second: float
    """Real images seen a second of training, the sampling of grids left out."""
    resumed_at: int
    """Step at which this process began; 0 when it was the first."""


class GanGame:
    """Networks, optimisers and the step; what is saved is `state`.

    Args:
        config: the run's configuration.
        data: images to learn.
        device: where to work.
    """

    def __init__(self, config: GanTraining, data: Data, device: torch.device) -> None:
        self.config, self.data, self.device = config, data, device
        if len(data) < config.batch_size:
            raise ConfigError(
                f"batch size {config.batch_size} is larger than the {len(data)} images of {data.name!r}; "
                "give a smaller --batch-size"
            )
        loss = GAN_LOSSES.get(config.loss)
        self.loss: GanLoss = loss(validate(loss.Config, config.parameters, f"GAN loss {config.loss!r}"))
        self.generator = cast(Generator, self._network("generator", config.generator))
        self.opponents = {
            name: cast(Discriminator, self._network("discriminator", config.discriminator, name))
            for name in self.loss.opponents
        }
        self.ema = Ema(self.generator, config.ema)
        self.optimisers = {
            "generator": self._adam(self.generator, config.rate_generator),
            **{name: self._adam(net, config.rate_discriminator) for name, net in self.opponents.items()},
        }
        self.order = Order(len(data), config.batch_size, config.seed)
        self.name = store_name(config.name, data.name, config.arch)
        self.step = 0

    def _network(self, role: str, parameters: dict[str, Any], purpose: str = "generator") -> Network:
        if self.config.arch not in pairs():
            near = did_you_mean(self.config.arch, pairs())
            known = ", ".join(pairs())
            raise ConfigError(f"there is no pair called {self.config.arch!r}{near}; known: {known}")
        with rng.scope("cpu", self.config.seed, "init", purpose):
            network = build(f"{self.config.arch}-{role}", shape=self.data.shape, config=parameters)
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _adam(self, network: nn.Module, rate: float) -> torch.optim.Adam:
        betas = (self.config.beta1, 0.999)
        return torch.optim.Adam(network.parameters(), rate, betas, fused=self.device.type in ("cpu", "cuda"))

    def latent(self, n: int, stream: str, step: int = 0) -> Tensor:
        """(n, latent_dim) latent vectors of one purpose and step."""
        return self.generator.draw(
            rng.keys(self.config.seed, stream, torch.arange(n, device=self.device), step)
        )

    def play(self) -> Tensor:
        """One step.

        Returns:
            (4,) on the device: the opponents' mean loss, accuracy on real and on generated images, and the
            generator's loss.
        """
        config = self.config
        real, _ = self.data.batch(self.order.batch(self.step), self.device)
        real = real.contiguous(memory_format=torch.channels_last)
        bfloat16 = torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
        figures = torch.zeros(4, device=self.device)
        with rng.scope(self.device, config.seed, "step", self.step):
            with bfloat16:
                fake = self.generator(self.latent(config.batch_size, "latent", self.step))
            for name, opponent in self.opponents.items():
                with bfloat16:
                    judged = self.loss.judge(name, opponent, real, fake.detach())
                self._update(name, judged.loss)
                share = 1 / len(self.opponents)
                figures[0] += judged.loss.detach() * share
                figures[1] += (judged.real > 0).float().mean() * share
                figures[2] += (judged.fake <= 0).float().mean() * share
            with bfloat16, _frozen(self.opponents):
                wanted = self.loss.generate(self.opponents, fake, real)
                self._update("generator", wanted)
            figures[3] = wanted.detach()
        self.ema.update(self.generator, self.step)
        self.step += 1
        return figures

    def _update(self, player: str, loss: Tensor) -> None:
        optimiser = self.optimisers[player]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def state(self) -> dict[str, Any]:
        """Everything a resume needs."""
        networks = {"generator": self.generator, "ema": self.ema.network, **self.opponents}
        return {
            "step": self.step,
            "networks": {name: network.state_dict() for name, network in networks.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` gave."""
        networks = {"generator": self.generator, "ema": self.ema.network, **self.opponents}
        for name, network in networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.step = state["step"]

    def models(self) -> tuple[Model, Model, dict[str, Model]]:
        """(generator, its average, opponents) as models with cards."""

        def model(network: nn.Module, role: str, parameters: dict[str, Any], *parents: Parent) -> Model:
            card = ModelCard(
                role=role,
                architecture=f"{self.config.arch}-{role}",
                config=parameters,
                shape=self.data.shape,
                data=self.data.facts,
                lineage=parents,
                training={"command": "gan-train", **self.config.model_dump(mode="json"), "step": self.step},
                created=now(),
                advkit=__version__,
            )
            return Model(network, card).eval()

        config = self.config
        generator = model(self.generator, "generator", config.generator)

        def parent(relation: Relation) -> Parent:
            return Parent(relation=relation, hash=generator.hash, name=f"{self.name}-generator")

        ema = model(self.ema.network, "generator", config.generator, parent("ema-of"))
        opponents = {
            name: model(network, "discriminator", config.discriminator, parent("discriminator-of"))
            for name, network in self.opponents.items()
        }
        return generator, ema, opponents


@contextmanager
def _frozen(networks: Mapping[str, nn.Module]) -> Iterator[None]:
    """No gradients for these weights inside: the generator's update has no use for them."""
    for network in networks.values():
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks.values():
            network.requires_grad_(True)


@torch.no_grad()
def draw(generator: Generator, latent: Tensor, batch_size: int = 500) -> Tensor:
    """Images (N, C, H, W) in [0, 1] of latent vectors, with the generator in eval mode and left as found."""
    training = generator.training
    generator.eval()
    try:
        return torch.cat([generator(part).float().cpu() for part in latent.split(batch_size)])
    finally:
        generator.train(training)


def train_gan(
    config: GanTraining,
    data: Data,
    *,
    run: RunFolder | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> TrainedGan:
    """Trains a generator and its opponents.

    Args:
        config: what to do.
        data: images to learn; labels are not used.
        run: folder for metrics, grids of samples and the state to resume from; None keeps nothing.
        device: where to work.
        progress: told the losses, the discriminator's accuracy and images a second as it goes.

    Raises:
        ConfigError: unknown names, or a batch larger than the data.
        DivergedError: a loss is no longer finite; the last checkpoint stays.
    """
    game = GanGame(config, data, torch.device(device))
    state = run.load_state() if run is not None else None
    if state is not None:
        game.restore(state)
        progress.say(f"resuming at step {game.step} of {config.steps}")
    real, _ = data.batch(rng.permutation(config.seed, "yardstick", len(data))[:GRID])
    monitor = Monitor(real)
    fixed = game.latent(GRID, "fixed")
    warned: set[str] = set()
    first, spent = game.step, 0.0
    with progress.task("training the GAN", config.steps, done=first) as task:
        figures, tick = [], time.perf_counter()
        while game.step < config.steps:
            figures.append(game.play())
            last = game.step == config.steps
            samples_due = game.step % config.sample_every == 0 or last
            state_due = game.step % config.checkpoint_every == 0 or last
            if not (game.step % LOG_EVERY == 0 or samples_due or state_due):
                continue
            row = _summary(torch.stack(figures))
            stop_if_diverged(game.step, d_loss=row["d_loss"], g_loss=row["g_loss"])
            spent += time.perf_counter() - tick
            row["images_per_second"] = (game.step - first) * config.batch_size / spent
            task.advance(
                len(figures),
                **{
                    "D loss": row["d_loss"],
                    "D accuracy": row["d_accuracy"],
                    "G loss": row["g_loss"],
                    "images/s": row["images_per_second"],
                },
            )
            if samples_due:
                samples = draw(game.ema.network, fixed)
                row["diversity"] = monitor.relative_diversity(samples)
                if run is not None:
                    images.write_grid(run.path / "samples" / f"step-{game.step:06d}.png", samples, 10)
            for kind, warning in warnings(row).items():
                if kind not in warned:
                    warned.add(kind)
                    progress.say(f"step {game.step}: {warning}")
            if run is not None:
                run.metrics(game.step, **row)
                if state_due:  # with its row written, so that a resumed run writes the same rows
                    run.save_state(game.state())
            figures, tick = [], time.perf_counter()
    generator, ema, opponents = game.models()
    rate = (game.step - first) * config.batch_size / spent if spent else 0.0
    return TrainedGan(generator, ema, opponents, rate, first)


def _summary(figures: Tensor) -> dict[str, float]:
    """Means over the steps since the last row; the only place where the host waits for the device."""
    d_loss, on_real, on_fake, g_loss = figures.mean(0).tolist()
    return {
        "d_loss": d_loss,
        "d_accuracy": (on_real + on_fake) / 2,
        "d_accuracy_real": on_real,
        "d_accuracy_fake": on_fake,
        "g_loss": g_loss,
    }
