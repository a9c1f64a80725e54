"""Sanity checks of a classifier, before anything is measured on it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from advkit.core import rng
from advkit.core.errors import DataError, ModelError, UserError, by_size
from advkit.core.modes import leaves_compilation_out, own_modes
from advkit.core.notes import Note
from advkit.models.black_box import black_box
from advkit.models.blame import backward_pass
from advkit.models.model import Model, evaluation_mode, refuse_meta
from advkit.models.outputs import Reading

NO_GRADIENTS = (
    "gives no gradients (quantised layers, NumPy or torch.no_grad inside do that): attack it without, by "
    "square or hop-skip-jump, or as advkit.BlackBox(predict, classes=..., shape=...)"
)

FAR = (10.0, -10.0, 1e3, -1e3)
"""Factors of contrast, far beyond what pixels allow."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a classifier before it is attacked."""

    deterministic: bool
    """Two passes over the same images agree."""
    notes: tuple[Note, ...]
    """What a person should know, a sentence each. Decisions rest on their codes alone."""
    differentiable: bool = True
    """Its outputs have a gradient with respect to its images."""
    outputs: int | None = None
    """How many it gives for an image; None of a black box, which is not asked."""


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
    refuse_meta(model.network)
    found = list(model.notes)
    if black_box(model) is not None:  # every pass is a query
        return ModelFacts(deterministic=not allow_random, notes=tuple(found))
    if any(getattr(module, "training", False) for module in model.modules()):
        found.append(Note("train-mode", "the model was in train mode; it is run in eval mode"))
    if leaves_compilation_out() and any(map(_is_compiled, model.modules())):
        how = "torch.compile is left out: the network runs as it is written"
        found.append(Note("not-compiled", how))
    with evaluation_mode(model), torch.no_grad(), rng.scope(images.device, 0, "inspect"):
        outputs = _first_outputs(model, images, classes)
        if model.copies:
            how = "the model changes its input in place, and is given a copy of each batch"
            found.append(Note("input-copied", how))
        if model.reading is not None:
            found.append(Note("output-unwrapped", f"of what the model returns, {model.reading.sentence}"))
        if classes is not None and outputs.shape[1] != classes:
            named = ", or name the classes of its outputs, in their order, with --classes FILE"
            raise ModelError(
                f"the model has {outputs.shape[1]} outputs but the data has {classes} classes; "
                f"choose data or a model that fits{named if outputs.shape[1] > classes else ''}"
            )
        if outputs.shape[1] != (model.card.classes or outputs.shape[1]):
            raise ModelError(
                f"the model has {outputs.shape[1]} outputs, but {model.card.classes} classes are said of it; "
                "say the right number, or leave it out"
            )
        single = model.reading is not None and model.reading.single
        _refuse_values(outputs, probabilities=model.probabilities, either=only_decisions or single)
        if single and not model.probabilities:
            _refuse_sigmoid(model, images)
        scale = max(1.0, outputs.abs().max().item())
        difference = (_outputs(model, images) - outputs).abs().max().item()
        deterministic = difference <= 8 * torch.finfo(outputs.dtype).eps * scale
        if not deterministic:
            said = f"the model is randomised: two passes on the same images differ by up to {difference:.3g}"
            if not allow_random:
                raise ModelError(f"{said}; make it deterministic, or pass --allow-random")
            found.append(Note("random", said))
        else:
            _refuse_batch_dependence(model, images, outputs, scale)
        differentiable = only_decisions or _differentiable(model, images[:1])
        if not differentiable:
            found.append(Note("no-gradients", f"the model {NO_GRADIENTS}"))
    model.answers = _answers(outputs) if model.foreign and deterministic else ()
    return ModelFacts(deterministic, tuple(found), differentiable, outputs.shape[1])


def _answers(outputs: Tensor) -> tuple[float, ...]:
    """The largest output of each image, and a sum of all with weights of either sign."""
    rows = outputs.detach().double().cpu()
    weights = torch.arange(rows.shape[1], dtype=torch.double).add(1).cos()
    return tuple(torch.cat([rows.amax(1), rows @ weights]).tolist())


def _refuse_batch_dependence(model: Model, images: Tensor, outputs: Tensor, scale: float) -> None:
    half = (len(images) + 1) // 2
    for size in (half, 1)[:half]:
        try:
            difference = (_outputs(model, images[:size]) - outputs[:size]).abs().max().item()
        except ModelError:
            if size == half:
                raise
            continue  # it need not take a single image, which no attack sends alone
        # Other batch sizes take other kernels, on GPUs with rounded inputs: 1e-3 is theirs, more is not.
        if difference > max(1e-3, 8 * torch.finfo(outputs.dtype).eps) * scale:
            raise ModelError(
                f"the model's answer to an image depends on the rest of its batch ({size} of {len(images)} "
                f"images make a difference of {difference:.3g}), as batch norm in train mode and dynamic "
                "quantisation do; use running statistics, and fixed scales"
            )


def _first_outputs(model: Model, images: Tensor, classes: int | None) -> Tensor:
    """The outputs; the model is then set up to read them so, and to keep its hands off its input."""
    model.copies, model.reading = False, None
    given = images.clone()
    tracked = not given.is_inference()
    version = given._version if tracked else 0
    returned = _called(model.returned, given)
    model.copies = (tracked and given._version != version) or not torch.equal(given, images)
    reading = model.find(returned, len(images), classes or model.card.classes)
    model.reading = reading if reading != Reading() else None
    return model.read(returned, images)


def _is_compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None


def _differentiable(model: Model, images: Tensor) -> bool:
    """Whether the outputs depend on the images for PyTorch; a gradient of zero is one."""
    with own_modes(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of quantised layers
        x = images.clone().requires_grad_()
        try:
            outputs = model(x)
            if not outputs.requires_grad:
                return False
            with backward_pass():
                (gradient,) = torch.autograd.grad(outputs.sum(), x, allow_unused=True)
        except Exception:  # it may be used without gradients, and says why where they are needed
            return True
    return gradient is not None


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


def _refuse_sigmoid(model: Model, images: Tensor) -> None:
    """Raises a `ModelError` if the one output of each image is a probability. A logit may lie from 0 to 1 on
    a few images by chance, but hardly on what lies far from all images, too."""
    for factor in (1.0, *FAR):
        with suppress(Exception):  # it need not take what is no image
            given = model((images - 0.5) * factor + 0.5)[:, 1]
            if bool(((given < 0) | (given > 1)).any()):
                return
    raise ModelError(
        "the model gives one number from 0 to 1 for each image, as a sigmoid does; return its logit, or pass "
        "--outputs probabilities; if it is a logit, return those of both classes: torch.cat([0 * z, z], 1)"
    )


def _outputs(model: Model, images: Tensor) -> Tensor:
    return cast(Tensor, _called(model, images))


def _called(model: Callable[[Tensor], Any], images: Tensor) -> Any:
    try:
        return model(images)
    except UserError:
        raise
    except Exception as error:  # a network may complain in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        size = by_size(images.shape)
        raise ModelError(f"the model fails on {size} images ({reason}); check what it takes") from error
