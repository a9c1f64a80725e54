"""Unrestricted adversarial examples: generated images that a classifier misclassifies.

Song, Shu, Kushman and Ermon, "Constructing Unrestricted Adversarial Examples with Generative Models", NeurIPS
2018: gradient descent on their three losses (the basic attack, without added noise), or random sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.attacks.engine.oracle import query
from advkit.attacks.losses.margin import margin
from advkit.core import rng
from advkit.core.errors import ConfigError, ModelError
from advkit.core.progress import SILENT, Progress, Task
from advkit.gan.judge import judge
from advkit.gan.labelled import common_classes
from advkit.gan.sample import of_known_prior
from advkit.models.architectures.conditional import AuxiliaryDiscriminator
from advkit.models.model import Model, evaluation_mode
from advkit.models.network import Generator
from advkit.trained_attacks.latent.settings import UnrestrictedSettings

REPORT_EVERY = 10
"""Passes between tests whether all examples are found; a test synchronises with the device."""


@dataclass(frozen=True)
class Constructed:
    """The results of N latent vectors, on the CPU."""

    found: Tensor
    """(N,) bool: an image that the classifier misclassifies (or classifies as the target), and that the
    auxiliary classifier assigns to the requested class."""
    labels: Tensor
    """(N,) requested classes."""
    start: Tensor
    """(N, C, H, W): the image of the first latent vector."""
    start_said: Tensor
    """(N,) its predicted class."""
    latent: Tensor
    """(N, latent_dim): of the first success; the first latent vector where there is none."""
    images: Tensor
    """(N, C, H, W): its image."""
    said: Tensor
    """(N,) its predicted class."""
    passes: Tensor
    """(N,) int64: forward and backward passes through the classifier."""


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
    """One example for each of ``n`` sampled latent vectors, of the generator's classes in turn.

    The result of a latent vector does not depend on the others, up to rounding.

    Args:
        model: images in [0, 1] to logits, on any device; its mode is restored.
        generator: a conditional one, on the same device.
        auxiliary: auxiliary classifier, images in [0, 1] to logits, or None.
        target: target class, which is not requested; None: any class but the requested one.

    Raises:
        ModelError: an unconditional generator, or one with an unknown prior.
    """
    network = of_known_prior(generator)
    if network.classes is None:
        raise ModelError(
            "the generator is unconditional, so no class can be requested; train one with advkit "
            "gan-train --conditional projection"
        )
    device = next(network.parameters()).device
    known = torch.tensor([label for label in range(network.classes) if label != target])
    labels = known[torch.arange(n) % len(known)]
    auxiliary_model = auxiliary if auxiliary is not None else nn.Identity()
    parts = []
    with (
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


class ClassHead(nn.Module):
    """The class head of a discriminator, as a classifier."""

    def __init__(self, discriminator: AuxiliaryDiscriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.discriminator.classify(x)


def auxiliary_classifier(auxiliary_model: Model, generator: Model, model: Model, name: str) -> nn.Module:
    """The auxiliary classifier for the search, from images in [0, 1] to logits.

    Args:
        auxiliary_model: a classifier, or a discriminator with a class head.
        generator: whose classes it must have.
        name: what the auxiliary classifier is called in errors.

    Raises:
        ConfigError: it is the attacked classifier or the judge.
        ModelError: it has no class logits, other classes, or another image shape.
    """
    if auxiliary_model.hash in (model.hash, judge().hash):
        role = (
            "the attacked classifier"
            if auxiliary_model.hash == model.hash
            else "the judge that evaluates the examples"
        )
        raise ConfigError(f"{name} is {role}, so it cannot be the auxiliary classifier; name another one")
    network = auxiliary_model.network
    if not isinstance(network, AuxiliaryDiscriminator) and auxiliary_model.card.role != "classifier":
        raise ModelError(
            f"{name} is a {auxiliary_model.card.role} without class logits; name a classifier, or the "
            "discriminator of a generator that was trained with --conditional auxiliary"
        )
    common_classes(generator, auxiliary_model)
    return ClassHead(network) if isinstance(network, AuxiliaryDiscriminator) else auxiliary_model


class _Search:
    """A batch of examples."""

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
        self.target = None if target is None else torch.full_like(labels, target)
        self.key = rng.keys(config.seed, "unrestricted", ids)
        self.prior_sample = generator.draw(self.key)

    def run(self, task: Task) -> tuple[Tensor, ...]:
        """The fields of `Constructed`, without the labels."""
        config, gradient = self.config, self.config.search == "gradient"
        with torch.no_grad():
            start = self.generator(self.prior_sample, self.labels).float()
            start_said = query(self.model, start).argmax(1)
        z = self._near() if gradient else self.prior_sample
        z = z.clone().requires_grad_(gradient)
        optimiser = torch.optim.Adam([z], config.rate)
        best, found = self.prior_sample.clone(), torch.zeros_like(self.labels, dtype=torch.bool)
        spent = torch.full_like(self.labels, config.passes)
        reported, cost = 0, 2 if gradient else 1
        for used in range(1, config.passes + 1, cost):
            with torch.set_grad_enabled(gradient):
                logits, auxiliary_logits = self._logits(z)
            success = self._success(logits, auxiliary_logits) & ~found
            best = torch.where(success[:, None], z.detach(), best)
            spent = torch.where(success, used, spent)
            found = found | success
            if used // REPORT_EVERY > reported // REPORT_EVERY:
                task.advance((used - reported) * len(z), found=float(found.float().mean()))
                reported = used
                if bool(found.all()):
                    break
            if gradient:
                (z.grad,) = torch.autograd.grad(self._loss(z, logits, auxiliary_logits).sum(), z)
                optimiser.step()
            else:
                z = self.generator.draw(rng.step(self.key, used))
        task.advance((config.passes - reported) * len(z))
        with torch.no_grad():
            images = self.generator(best, self.labels).float()
            logits = query(self.model, images)
        said = logits.argmax(1)
        # For exactly the returned image; another batch may round differently.
        found = found & self._misled(logits)
        return found, start, start_said, best, images, said, spent

    def _near(self) -> Tensor:
        """A random point within the radius, where the soft constraint is 0."""
        offset = 2 * rng.uniform(rng.step(self.key, 0), self.prior_sample.shape[1:]) - 1
        return self.prior_sample + self.config.radius * offset

    def _logits(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of the classifier and of the auxiliary classifier."""
        x = self.generator(z, self.labels).float()
        return query(self.model, x), None if self.auxiliary is None else query(self.auxiliary, x)

    def _misled(self, logits: Tensor) -> Tensor:
        said = logits.argmax(1)
        return (said != self.labels if self.target is None else said == self.target) & ~logits.isnan().any(1)

    def _success(self, logits: Tensor, auxiliary_logits: Tensor | None) -> Tensor:
        misled = self._misled(logits)
        return misled if auxiliary_logits is None else misled & (auxiliary_logits.argmax(1) == self.labels)

    def _loss(self, z: Tensor, logits: Tensor, auxiliary_logits: Tensor | None) -> Tensor:
        """(N,) the sum of the attack loss, the distance penalty and the auxiliary loss."""
        if self.target is None:
            loss = -margin(logits, self.labels, None)
        else:
            loss = cross_entropy(logits, self.target, reduction="none")
        beyond = ((z - self.prior_sample).abs() - self.config.radius).clamp(min=0).mean(1)
        loss = loss + self.config.near * beyond
        if auxiliary_logits is not None:
            loss = loss + self.config.keep * cross_entropy(auxiliary_logits, self.labels, reduction="none")
        return loss
