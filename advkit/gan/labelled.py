"""Generated images with classes, so many of each: what a classifier's training set is filled up with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softmax

from advkit.core.errors import ConfigError, DataError, ModelError, by_size
from advkit.core.levels import as_image
from advkit.core.progress import SILENT, Progress
from advkit.gan.sample import in_turn, of_known_prior, piece
from advkit.models.model import Model, evaluation_mode

TRIES = 50
"""Images drawn at most for each that is wanted, before a class is said not to be found."""


class Labelled(NamedTuple):
    """Images in the order in which they were drawn."""

    images: Tensor
    """(n, C, H, W) uint8"""
    labels: Tensor
    """(n,) int64"""
    latents: Tensor
    """(n, latent_dim) float32"""
    drawn: int
    """How many images were drawn to find these."""


def sample_labelled(
    generator: Model,
    classifier: Model,
    n: int,
    *,
    confidence: float,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Labelled:
    """The first images of a seed that a classifier is sure of, the same number of each of its classes.

    Those of a conditional generator count only if the classifier sees the class that was asked for.

    Args:
        classifier: what tells the classes; on the same device.
        n: how many images; where they do not divide evenly, the first classes get one more.
        confidence: least probability of the most probable class.

    Raises:
        ModelError: the classifier takes other images, or knows other classes than a conditional generator.
        ConfigError: fewer images than classes.
        DataError: a class was not found often enough among ``TRIES`` times as many images.
    """
    network, classes = of_known_prior(generator), common_classes(generator, classifier)
    if n < classes:
        raise ConfigError(f"{n} images cannot be of all {classes} classes; ask for --n {classes} or more")
    wanted = torch.full((classes,), n // classes)
    wanted[: n % classes] += 1
    found = torch.zeros_like(wanted)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    drawn = 0
    with evaluation_mode(classifier), progress.task("drawing sure images", n, unit="image") as task:
        while (missing := wanted - found).any():
            if drawn >= TRIES * n:
                raise DataError(_not_found(missing, wanted, drawn, confidence))
            asked = in_turn(network, drawn)
            images, latents = piece(generator, seed, drawn, asked)
            labels, sure = _judge(classifier, images)
            good = sure >= confidence
            if asked is not None:
                good &= labels == asked
            rows = _first(labels, good, missing)
            kept.append((images[rows], labels[rows], latents[rows]))
            found += torch.bincount(labels[rows], minlength=classes)
            drawn += len(images)
            task.advance(len(rows), drawn=drawn)
    images, labels, latents = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return Labelled(images, labels, latents, drawn)


def common_classes(generator: Model, classifier: Model) -> int:
    """Number of classes of a classifier that labels a generator's images.

    Raises:
        ModelError: the classifier takes other images, or knows other classes than a conditional generator.
    """
    if generator.card.shape != classifier.card.shape:
        drawn, taken = (by_size(m.card.shape) for m in (generator, classifier))
        raise ModelError(
            f"the classifier takes {taken} images but the generator draws {drawn} ones "
            "(channels x height x width); choose a classifier of the same images"
        )
    classes, theirs = classifier.card.classes, generator.card.classes
    if classes is None:
        raise ModelError(
            "the classifier's card does not say how many classes it has; choose another classifier"
        )
    if theirs not in (None, classes):
        raise ModelError(
            f"the classifier has {classes} classes but the generator has {theirs}; "
            "choose a classifier of the same classes"
        )
    return classes


@torch.no_grad()
def _judge(classifier: Model, images: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable class of each image, and its probability, on the CPU."""
    device = next(classifier.parameters()).device
    probabilities = softmax(classifier(as_image(images.to(device))).float(), dim=1).cpu()
    sure, labels = probabilities.max(1)
    return labels, sure


def _first(labels: Tensor, good: Tensor, missing: Tensor) -> Tensor:
    """Rows of the first ``missing`` good images of each class, in their order."""
    rank = torch.nn.functional.one_hot(labels, len(missing)).mul(good[:, None]).cumsum(0)
    return (good & (rank.gather(1, labels[:, None])[:, 0] <= missing[labels])).nonzero()[:, 0]


def _not_found(missing: Tensor, wanted: Tensor, drawn: int, confidence: float) -> str:
    label = int((missing / wanted).argmax())
    found = int(wanted[label] - missing[label])
    return (
        f"among {drawn:,} generated images only {found} of class {label} were found with confidence "
        f"{confidence:g} or more, where {int(wanted[label])} are wanted: the generator may not draw that "
        "class; lower --confidence, ask for a smaller --n, or choose another generator or classifier"
    )
