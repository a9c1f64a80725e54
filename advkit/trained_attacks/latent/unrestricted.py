"""Unrestricted adversarial examples: generated images that a classifier takes for another class.

Song, Shu, Kushman and Ermon, "Constructing Unrestricted Adversarial Examples with Generative Models", NeurIPS
2018: gradients down their three losses (the basic attack, without added noise), or draws alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.attacks.engine.oracle import query
from advkit.attacks.losses.margin import margin
from advkit.core import memory, rng
from advkit.core.errors import ModelError
from advkit.core.progress import SILENT, Progress, Task
from advkit.gan.sample import of_known_prior
from advkit.models.mode import evaluation_mode
from advkit.models.model import Model
from advkit.models.network import Generator
from advkit.trained_attacks.latent.unrestricted_settings import UnrestrictedSettings

REPORT_EVERY = 10
"""Passes between looks whether all examples are found; a look waits for the device."""


@dataclass(frozen=True)
class Constructed:
    """What came of N latent vectors, on the CPU."""

    found: Tensor
    """(N,) bool: an image that the classifier errs on (or takes for the target), and that the auxiliary
    classifier takes for the class asked for."""
    labels: Tensor
    """(N,) classes asked for."""
    start: Tensor
    """(N, C, H, W): the image of the latent vector that was drawn first."""
    start_said: Tensor
    """(N,) what the classifier calls that."""
    latent: Tensor
    """(N, latent_dim): of the first image found; the one drawn first where nothing was."""
    images: Tensor
    """(N, C, H, W): what the generator makes of it."""
    said: Tensor
    """(N,) what the classifier calls that."""
    passes: Tensor
    """(N,) int64: through the classifier, both ways, until it was found or given up."""


def construct(
    model: Model,
    generator: Model,
    n: int,
    config: UnrestrictedSettings,
    *,
    auxiliary: nn.Module | None = None,
    target: int | None = None,
    progress: Progress = SILENT,
) -> Constructed:
    """One example for each of ``n`` drawn latent vectors, of the generator's classes in turn.

    What is found from a latent vector does not depend on the others, but for rounding.

    Args:
        model: images in [0, 1] to logits, on any device; left in the mode that it is in.
        generator: a conditional one, on the same device.
        n: how many.
        config: how to search.
        auxiliary: images in [0, 1] to logits: what keeps the class; None: nothing does.
        target: class that the model is to see; it is not asked for. None: any but the one asked for.
        progress: told how many are found.

    Raises:
        ModelError: a generator without classes, or one that does not say how its latent vectors are drawn.
    """
    network = of_known_prior(generator)
    if network.classes is None:
        raise ModelError(
            "the generator is unconditional, so no class can be asked for; train one with advkit gan-train "
            "--conditional projection"
        )
    device = next(network.parameters()).device
    known = torch.tensor([label for label in range(network.classes) if label != target])
    labels = known[torch.arange(n) % len(known)]
    auxiliary_model = auxiliary if auxiliary is not None else nn.Identity()
    parts = []
    with (
        memory.kept(),
        evaluation_mode(model),
        evaluation_mode(generator),
        evaluation_mode(auxiliary_model),
        progress.task("searching latent space", n * config.passes, unit="pass") as task,
    ):
        for ids in torch.arange(n).split(config.batch_size):
            search = _Search(
                model, network, auxiliary, labels[ids].to(device), ids.to(device), config, target
            )
            parts.append([each.cpu() for each in search.run(task)])
    found, start, start_said, latent, images, said, passes = (
        torch.cat(each) for each in zip(*parts, strict=True)
    )
    return Constructed(found, labels, start, start_said, latent, images, said, passes)


class _Search:
    """Some examples at once."""

    def __init__(
        self,
        model: Model,
        generator: Generator,
        auxiliary: nn.Module | None,
        labels: Tensor,
        ids: Tensor,
        config: UnrestrictedSettings,
        target: int | None,
    ) -> None:
        self.model, self.generator, self.auxiliary = model, generator, auxiliary
        self.labels, self.config = labels, config
        self.aim = None if target is None else torch.full_like(labels, target)
        self.key = rng.keys(config.seed, "unrestricted", ids)
        self.drawn = generator.draw(self.key)

    def run(self, task: Task) -> tuple[Tensor, ...]:
        """The fields of `Constructed`, labels left out."""
        config, climbs = self.config, self.config.search == "gradient"
        with torch.no_grad():
            start = self.generator(self.drawn, self.labels).float()
            start_said = query(self.model, start).argmax(1)
        z = self._near() if climbs else self.drawn
        z = z.clone().requires_grad_(climbs)
        optimiser = torch.optim.Adam([z], config.rate)
        best, found = self.drawn.clone(), torch.zeros_like(self.labels, dtype=torch.bool)
        spent = torch.full_like(self.labels, config.passes)
        told, cost = 0, 2 if climbs else 1
        for used in range(1, config.passes + 1, cost):
            with torch.set_grad_enabled(climbs):
                logits, kept = self._look(z)
            won = self._won(logits, kept) & ~found
            best = torch.where(won[:, None], z.detach(), best)
            spent = torch.where(won, used, spent)
            found = found | won
            if used // REPORT_EVERY > told // REPORT_EVERY:
                task.advance((used - told) * len(z), found=float(found.float().mean()))
                told = used
                if bool(found.all()):
                    break
            if climbs:
                (z.grad,) = torch.autograd.grad(self._loss(z, logits, kept).sum(), z)
                optimiser.step()
            else:
                z = self.generator.draw(rng.step(self.key, used))
        task.advance((config.passes - told) * len(z))
        with torch.no_grad():
            images = self.generator(best, self.labels).float()
            logits = query(self.model, images)
        said = logits.argmax(1)
        # Exactly the image that is kept; another batch may round otherwise.
        found = found & self._misled(logits)
        return found, start, start_said, best, images, said, spent

    def _near(self) -> Tensor:
        """A random point within the radius, where the soft constraint costs nothing."""
        aside = 2 * rng.uniform(rng.step(self.key, 0), self.drawn.shape[1:]) - 1
        return self.drawn + self.config.radius * aside

    def _look(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the classifier and the auxiliary one say."""
        x = self.generator(z, self.labels).float()
        return query(self.model, x), None if self.auxiliary is None else query(self.auxiliary, x)

    def _misled(self, logits: Tensor) -> Tensor:
        said = logits.argmax(1)
        return (said != self.labels if self.aim is None else said == self.aim) & ~logits.isnan().any(1)

    def _won(self, logits: Tensor, kept: Tensor | None) -> Tensor:
        misled = self._misled(logits)
        return misled if kept is None else misled & (kept.argmax(1) == self.labels)

    def _loss(self, z: Tensor, logits: Tensor, kept: Tensor | None) -> Tensor:
        """(N,) what misleads the classifier, what stays near, and what keeps the class."""
        if self.aim is None:
            loss = -margin(logits, self.labels, None)
        else:
            loss = cross_entropy(logits, self.aim, reduction="none")
        beyond = ((z - self.drawn).abs() - self.config.radius).clamp(min=0).mean(1)
        loss = loss + self.config.near * beyond
        if kept is not None:
            loss = loss + self.config.keep * cross_entropy(kept, self.labels, reduction="none")
        return loss
