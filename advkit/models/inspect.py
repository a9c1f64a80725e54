"""Sanity checks of a classifier, before anything is measured on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.core import rng
from advkit.core.errors import DataError, ModelError, by_size
from advkit.models.model import Model, evaluation_mode


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a classifier before it is attacked."""

    deterministic: bool
    """Two passes over the same images agree."""
    notes: tuple[str, ...]
    """What a person should know, a sentence each. For people alone: nothing is decided by them."""


def inspect_classifier(
    model: Model,
    images: Tensor,
    classes: int | None,
    *,
    allow_random: bool = False,
    only_decisions: bool = False,
) -> ModelFacts:
    """Looks at what ``model`` says of a few images, in eval mode, and leaves it as it was found.

    Args:
        model: a classifier.
        images: (N, C, H, W) float in [0, 1], on the model's device; a handful of different ones.
        classes: how many the data has; None when that is not known.
        allow_random: a model whose outputs differ from pass to pass is meant to.
        only_decisions: which class it names is all that matters, so probabilities do as well as logits.

    Raises:
        DataError: the images have another size or number of channels than the model takes.
        ModelError: what comes out is not one row of finite logits for each image, which depends on that
            image alone.
    """
    if tuple(images.shape[1:]) != model.card.shape:
        raise DataError(
            f"the images are {by_size(images.shape[1:])} but the model takes {by_size(model.card.shape)} "
            "(channels x height x width); choose data or a model that fits"
        )
    found = [model.card.notes] if model.card.notes else []
    if any(module.training for module in model.modules()):
        found.append("the model was in train mode; it is run in eval mode")
    with evaluation_mode(model), torch.no_grad(), rng.scope(images.device, 0, "inspect"):
        outputs = _outputs(model, images)
        _refuse_shape(outputs, len(images), classes)
        _refuse_values(outputs, probabilities=model.probabilities, either=only_decisions)
        scale = max(1.0, outputs.abs().max().item())
        difference = (_outputs(model, images) - outputs).abs().max().item()
        if difference > 8 * torch.finfo(outputs.dtype).eps * scale:
            said = f"the model is randomised: two passes on the same images differ by up to {difference:.3g}"
            if not allow_random:
                raise ModelError(f"{said}; make it deterministic, or pass --allow-random")
            return ModelFacts(deterministic=False, notes=(*found, said))
        half = (len(images) + 1) // 2
        difference = (_outputs(model, images[:half]) - outputs[:half]).abs().max().item()
        # Other batch sizes take other kernels, on GPUs with rounded inputs: 1e-3 is theirs, more is not.
        if difference > max(1e-3, 8 * torch.finfo(outputs.dtype).eps) * scale:
            raise ModelError(
                "the model's answer to an image depends on the rest of its batch (half of it makes a "
                f"difference of {difference:.3g}), as batch norm in train mode does; use running statistics"
            )
    return ModelFacts(deterministic=True, notes=tuple(found))


def _refuse_shape(outputs: Tensor, count: int, classes: int | None) -> None:
    if outputs.dim() != 2 or len(outputs) != count:
        raise ModelError(
            f"the model gives outputs of shape {tuple(outputs.shape)} for {count} images; "
            f"give one that returns a row of logits for each image, ({count}, {classes or 'classes'}) here"
        )
    if classes is not None and outputs.shape[1] != classes:
        raise ModelError(
            f"the model has {outputs.shape[1]} classes but the data has {classes}; "
            "choose data or a model that fits, or name the model's classes with --classes FILE"
        )


def _refuse_values(outputs: Tensor, *, probabilities: bool, either: bool) -> None:
    if not torch.isfinite(outputs).all():
        raise ModelError(
            "the model gives NaN or infinite logits on clean images; check its weights and its normalisation"
        )
    if either and not probabilities:
        return
    positive = outputs.exp() if probabilities else outputs
    sums_to_one = bool((positive >= 0).all() and ((positive.sum(1) - 1).abs() < 1e-4).all())
    if sums_to_one and not probabilities:
        raise ModelError(
            "the model gives probabilities (rows that sum to 1), whose gradients mislead attacks; "
            "give its logits, or pass --outputs probabilities"
        )
    if probabilities and not sums_to_one:
        raise ModelError("the model's outputs do not sum to 1, so are no probabilities; leave --outputs out")


def _outputs(model: Model, images: Tensor) -> Tensor:
    try:
        outputs = model(images)
    except Exception as error:  # a foreign network may complain in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        size = by_size(images.shape)
        raise ModelError(f"the model fails on {size} images ({reason}); check what it takes") from error
    if not isinstance(outputs, Tensor):
        raise ModelError(f"the model returns {type(outputs).__name__}; give one that returns a tensor")
    return outputs
