"""GAN inversion: Adam on latent vectors, several starts per image in one batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.core import rng
from advkit.core.errors import DataError, by_size
from advkit.core.progress import SILENT, Progress, Task
from advkit.gan.sample import draw, of_known_prior
from advkit.models.model import Model, evaluation_mode
from advkit.models.network import Vae
from advkit.trained_attacks.latent.settings import InversionSettings
from advkit.training.schedule import factor

REPORT_EVERY = 25
"""Steps between reports of progress."""


@dataclass(frozen=True)
class Inverted:
    """The inversions of N images, on the CPU."""

    latent: Tensor
    """(N, latent_dim) float32."""
    images: Tensor
    """(N, C, H, W) float32: the reconstructions."""
    error: Tensor
    """(N,) mean squared error, for pixels in [0, 1]."""
    start_error: Tensor
    """(N,) the least error of the starts, before any step: that of random sampling."""
    start: Tensor
    """(N,) int64: the best start."""


def invert(
    model: Model,
    x: Tensor,
    labels: Tensor | None = None,
    config: InversionSettings | None = None,
    *,
    ids: Tensor | None = None,
    encoder: Vae | None = None,
    progress: Progress = SILENT,
) -> Inverted:
    """Gradient-based search for the latent vectors whose images are nearest to given ones.

    The starts are sampled from the generator's prior, by (seed, id, start). The result of an image does not
    depend on the rest of the batch, up to rounding.

    Args:
        model: a generator, on any device; its mode is restored and its gradients are untouched.
        x: (N, C, H, W) images in [0, 1].
        labels: (N,) their classes, for conditional generators; else unused.
        ids: (N,) int64 ids of the images; by default their positions.
        encoder: the VAE of the decoder ``model``: its means are the first starts.

    Raises:
        ModelError: the prior of the generator is unknown.
        DataError: images of another shape or with classes that the generator does not have.
    """
    config = config or InversionSettings()
    generator = of_known_prior(model)
    device = next(generator.parameters()).device
    ids = torch.arange(len(x)) if ids is None else ids
    _refuse_misfits(model, x, labels)
    number = torch.arange(len(x)).repeat_interleave(
        config.restarts
    )  # all starts of an image, then those of the next
    start = torch.arange(config.restarts).repeat(len(x))
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    total = config.steps * len(number)
    with evaluation_mode(model), progress.task("inverting", total, unit="step") as task:
        for part in torch.arange(len(number)).split(config.batch_size):
            key = rng.keys(config.seed, "invert", ids[number[part]].to(device), start[part].to(device))
            z = generator.draw(key)
            images = x[number[part]].to(device, torch.float32)
            if encoder is not None:
                with torch.no_grad(), evaluation_mode(encoder):
                    mean = encoder.encode(images)[0]
                z = torch.where((start[part] == 0).to(device)[:, None], mean, z)
            conditions = generator.asked(None if labels is None else labels[number[part]].to(device))
            parts.append(_optimised(model, z, images, conditions, config, task))
    latent, error, first = (
        torch.cat(each).view(len(x), config.restarts, -1) for each in zip(*parts, strict=True)
    )
    best = error[..., 0].argmin(1)
    rows = torch.arange(len(x))
    kept = latent[rows, best]
    return Inverted(
        latent=kept,
        images=draw(model, kept, *generator.asked(labels), batch_size=config.batch_size),
        error=error[rows, best, 0],
        start_error=first[..., 0].amin(1),
        start=best,
    )


def _optimised(
    model: Model,
    z: Tensor,
    images: Tensor,
    conditions: tuple[Tensor, ...],
    config: InversionSettings,
    task: Task,
) -> tuple[Tensor, Tensor, Tensor]:
    """(best latent vectors, their errors, errors of the starts), on the CPU."""
    z = z.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([z], config.rate)
    best, least, first, reported = z.detach().clone(), None, None, 0
    for step in range(config.steps + 1):
        with torch.enable_grad():
            error = (model(z, *conditions) - images).square().flatten(1).mean(1)
            (gradient,) = torch.autograd.grad(error.sum(), z)
        now = error.detach()
        if least is None or first is None:
            least, first = now.clone(), now.clone()
        else:
            better = now < least
            least = torch.where(better, now, least)
            best = torch.where(better[:, None], z.detach(), best)
        if step == config.steps:
            break
        optimiser.param_groups[0]["lr"] = config.rate * factor("cosine", step, config.steps)
        z.grad = gradient
        optimiser.step()
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == config.steps:
            task.advance((step + 1 - reported) * len(z), error=float(least.mean()))
            reported = step + 1
    assert least is not None and first is not None
    return best.cpu(), least.cpu(), first.cpu()


def _refuse_misfits(model: Model, x: Tensor, labels: Tensor | None) -> None:
    generator = of_known_prior(model)
    if tuple(x.shape[1:]) != generator.shape:
        theirs, ours = map(by_size, (generator.shape, x.shape[1:]))
        raise DataError(
            f"the generator makes {theirs} images but these are {ours} (channels x height x width); choose "
            "the data that it was trained on"
        )
    if generator.classes is None:
        return
    if labels is None:
        raise DataError("the generator is conditional; give the classes of the images")
    if int(labels.min()) < 0 or int(labels.max()) >= generator.classes:
        raise DataError(
            f"the images have classes from {int(labels.min())} to {int(labels.max())} but the generator "
            f"has {generator.classes}; choose the data that it was trained on"
        )
