"""Adversarial images from Python: `perturb` for users, `fixed` for training loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advkit.attacks.attack import ATTACKS, Attack, Rows
from advkit.attacks.engine.batch_size import BatchSizeTuner
from advkit.attacks.engine.oracle import Oracle, query
from advkit.attacks.engine.outcome import Found
from advkit.attacks.engine.search import Search, run_fixed
from advkit.attacks.engine.search_model import search_model
from advkit.attacks.loss import AttackLoss
from advkit.core import rng
from advkit.core.config import Precision, validate
from advkit.core.errors import ModelError
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.data.load import as_data
from advkit.models.model import evaluation_mode


def make(name: str, threat: Threat, parameters: Mapping[str, Any] | None = None) -> Attack[Any]:
    """The attack called ``name`` with its parameters.

    Raises:
        ConfigError: unknown name or parameter, or a norm that the attack does not support.
    """
    kind = ATTACKS.get(name)
    return kind(validate(kind.Config, parameters or {}, f"attack {name!r}"), threat)


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's weights; the CPU when it has none."""
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


@torch.no_grad()
def logits_of(model: nn.Module, data: Data, batch_size: int = 500) -> Tensor:
    """(N, K) logits of all images, on the CPU; the model must be in eval mode."""
    device = device_of(model)
    parts = [
        query(model, data.batch(index, device)[0]).float().cpu()
        for index in torch.arange(len(data)).split(batch_size)
    ]
    return torch.cat(parts)


def perturb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    attack: str = "pgd",
    *,
    parameters: Mapping[str, Any] | None = None,
    target: Tensor | None = None,
    surrogate: nn.Module | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    precision: Precision = "auto",
    eight_bit: bool = False,
) -> Tensor:
    """Adversarial images: for each, the first success that the attack finds, else the last point it tried.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K); its mode is restored.
        x: (N, C, H, W) images in [0, 1].
        y: (N,) true classes.
        threat: the threat model; every returned image is inside it.
        attack: a registered attack (``advkit ls attacks``).
        parameters: the attack's own, for example ``{"steps": 100}``.
        target: (N,) target classes; None: untargeted.
        surrogate: the model to search on, for transfer attacks: ``model`` itself is only queried for its
            decision, on points that the surrogate misclassifies and on the last point.
        seed: determines all random numbers, with an image's position.
        batch_size: images attacked at once, measured if None. It changes the result by rounding at most: with
            one thread on a CPU not at all, with several threads or on a GPU in the last bits.
        precision: arithmetic of the search (auto: bfloat16 where the processor supports it); successes are
            confirmed in the model's own.
        eight_bit: round to multiples of 1/255, as a PNG file stores them, and count only images that are
            inside the threat model and misclassified then; ``x`` must consist of such multiples.

    Returns:
        (N, C, H, W) float32, on the device of ``x``.
    """
    data = as_data(x, y)
    result = torch.empty(data.images.shape, dtype=torch.float32)

    def keep(found: Found) -> None:
        result[found.index] = found.x

    with evaluation_mode(model), evaluation_mode(surrogate or model):
        search = searching(
            model,
            data,
            make(attack, threat, parameters),
            name=attack,
            seed=seed,
            batch_size=batch_size,
            precision=precision,
            target_class=target.cpu() if target is not None else None,
            eight_bit=eight_bit,
            surrogate=surrogate,
        )
        search.run(torch.arange(len(data)), keep)
    return result.to(x.device)


def fixed(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    attack: str = "pgd",
    parameters: Mapping[str, Any] | None = None,
    ids: Tensor,
    seed: int,
    step: int = 0,
    precision: Precision | None = None,
    loss: AttackLoss | None = None,
) -> Tensor:
    """All steps of an attack on every image, with no early exit and no confirmation, for training loops.

    Args:
        model: images in [0, 1] to logits; attacked in eval mode and returned to its own mode.
        x: (N, C, H, W) images in [0, 1], on the model's device.
        y: (N,) true classes.
        threat: the threat model.
        attack: a registered attack.
        parameters: the attack's own.
        ids: (N,) sample ids; (seed, id, step) determines the random numbers.
        seed: the user's seed.
        step: training step, so that every epoch starts from other points.
        precision: search on a copy in this arithmetic; None: on the model itself, since copying weights that
            change at every step costs more than it saves.
        loss: replaces the attack's own loss; row i of its arguments belongs to image i.

    Returns:
        (N, C, H, W) inside the threat model.
    """
    rows = Rows.untargeted(x, y, ids, rng.keys(seed, attack, ids, step))
    with evaluation_mode(model):
        made = make(attack, threat, parameters)
        twin = None if precision is None else search_model(model, precision, x[:16], made.access)
        return run_fixed(made, Oracle(model, threat, twin, access=made.access, loss=loss), rows)


def searching(
    model: nn.Module,
    data: Data,
    attack: Attack[Any],
    *,
    name: str,
    seed: int,
    batch_size: int | None = None,
    precision: Precision = "auto",
    clean: Tensor | None = None,
    target_class: Tensor | None = None,
    nearest: bool = False,
    eight_bit: bool = False,
    surrogate: nn.Module | None = None,
) -> Search:
    """A search by one attack on the images of ``data``, ready to run; the model must be in eval mode.

    Args:
        model: images in [0, 1] to logits.
        data: the images to attack.
        attack: the attack, with its threat model.
        name: the attack's name, which seeds its random numbers.
        seed: the user's seed.
        batch_size: tuned if None.
        precision: arithmetic of the search; minimum-norm searches always use float32.
        clean: (N, K) logits of all images, if known.
        target_class: (N,) target classes.
        nearest: search for the nearest success rather than for the first.
        eight_bit: report images of 8-bit levels.
        surrogate: search on it rather than on the model, which then only confirms; in eval mode too, and on
            the same device.

    Raises:
        DataError: ``eight_bit`` with images that are not of 8-bit levels.
        ModelError: the surrogate has another number of classes.
    """
    if eight_bit:
        data.refuse_fractions()
    device = device_of(model)
    few, _ = data.batch(torch.arange(min(16, len(data))), device)
    if surrogate is not None:
        refuse_other_classes(model, surrogate, few)
    twin = search_model(surrogate or model, "float32" if nearest else precision, few, attack.access)
    oracle = Oracle(model, attack.threat, twin, access=attack.access, nearest=nearest, eight_bit=eight_bit)
    return Search(
        attack,
        oracle,
        data,
        logits_of(model, data) if clean is None else clean,
        seed=seed,
        name=name,
        tuner=BatchSizeTuner(device, data.shape, batch_size),
        device=device,
        target_class=target_class,
    )


@torch.no_grad()
def refuse_other_classes(model: nn.Module, surrogate: nn.Module, images: Tensor) -> None:
    """Raises a ModelError unless both have the same number of logits on a few ``images``."""
    classes, others = model(images).shape[1], surrogate(images).shape[1]
    if classes != others:
        raise ModelError(
            f"the surrogate has {others} classes and the model {classes}; "
            "choose a surrogate with the classes of the model"
        )


def robust_correct(
    model: nn.Module,
    data: Data,
    threat: Threat,
    attack: str = "pgd",
    *,
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    precision: Precision = "float32",
) -> tuple[Tensor, Tensor]:
    """((N,) bool: clean image classified correctly, (N,) bool: correct and robust against one attack)."""
    with evaluation_mode(model):
        clean = logits_of(model, data)
        correct = clean.argmax(1) == data.labels.cpu()
        robust = correct.clone()

        def note(found: Found) -> None:
            robust[found.index] = not found.broken

        made = make(attack, threat, parameters)
        search = searching(
            model, data, made, name=attack, seed=seed, batch_size=batch_size, precision=precision, clean=clean
        )
        search.run(correct.nonzero()[:, 0], note)
    return correct, robust
