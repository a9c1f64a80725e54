"""Adversarial images from Python: `perturb` for users, `fixed` for training loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from advkit.attacks.attack import ATTACKS, Attack, Rows
from advkit.attacks.engine.batch_size import BatchSizeTuner
from advkit.attacks.engine.oracle import Oracle, query
from advkit.attacks.engine.outcome import Found
from advkit.attacks.engine.search import Search, run_fixed
from advkit.attacks.engine.search_model import search_model
from advkit.attacks.loss import AttackLoss
from advkit.core import rng
from advkit.core.bars import shown
from advkit.core.config import Precision, StrictModel, validate
from advkit.core.errors import ConfigError, ModelError
from advkit.core.modes import own_modes
from advkit.core.notes import Note
from advkit.core.progress import Progress
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.data.load import as_data
from advkit.models.black_box import BlackBox, black_box, counted
from advkit.models.inspect import NO_GRADIENTS, inspect_classifier
from advkit.models.load import as_classifier
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
    return torch.cat([*logits_by_piece(model, data, data.pieces(batch_size))])


@torch.no_grad()
def logits_by_piece(model: nn.Module, data: Data, pieces: Sequence[Tensor]) -> Iterator[Tensor]:
    """(n, K) as `logits_of`, of the rows (n,) of each piece."""
    for index, images in data.batches(pieces, device_of(model)):
        yield query(model, images, data.ids[index]).float().cpu()


class Perturbed(Tensor):
    """The images that an attack made, a tensor (N, C, H, W) of float32, with its success on each.

    An image is the first success of the attack, else its last point, and always inside the threat model.
    Operations on it return plain tensors.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    success: Tensor
    """(N,) bool: misclassified, or classified as the target. The model itself confirmed it."""
    distance: Tensor
    """(N,) float32: from the original, in the threat model's norm."""
    forwards: Tensor
    """(N,) int64: forward passes of the attack; of a `BlackBox` all queries about the image, also that of its
    original and those that failed."""
    backwards: Tensor
    """(N,) int64: backward passes."""
    notes: tuple[Note, ...]
    """What was found about the model and assumed of it, a sentence each."""

    @property
    def x(self) -> Tensor:
        """The images as a plain tensor."""
        return self.as_subclass(Tensor)

    def __repr__(self) -> str:  # type: ignore[override]
        return (
            f"<Perturbed: success on {int(self.success.sum())} of {len(self)} images, "
            f"{float(self.forwards.float().mean()):,.0f} forward passes each>"
        )


class _Settings(StrictModel):
    attack: str
    seed: int = Field(ge=0)
    batch_size: int | None = Field(ge=1)
    precision: Precision


@own_modes()
def perturb(
    model: nn.Module | str | Path,
    x: Any,
    y: Any,
    threat: Threat,
    attack: str = "pgd",
    *,
    parameters: Mapping[str, Any] | None = None,
    target: Any = None,
    surrogate: nn.Module | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    precision: Precision = "auto",
    eight_bit: bool = False,
    allow_random: bool = False,
    classes: int | None = None,
    progress: Progress | bool | None = None,
) -> Perturbed:
    """Adversarial images: for each, the first success that the attack finds, else the last point it tried.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K), or whatever `load_model` takes; its mode is
            restored.
        x: (N, C, H, W) images in [0, 1], or uint8.
        y: (N,) true classes.
        threat: the threat model; every returned image is inside it.
        attack: a registered attack (``advkit ls attacks``).
        parameters: the attack's own, for example ``{"steps": 100}``.
        target: target classes (N,), or one class for all images; None: untargeted.
        surrogate: the model to search on, for transfer attacks: ``model`` itself is only queried for its
            decision, on points that the surrogate misclassifies and on the last point.
        seed: determines all random numbers, with an image's position.
        batch_size: images attacked at once, measured if None. It changes the result by rounding at most: with
            one thread on a CPU not at all, with several threads or on a GPU in the last bits.
        precision: arithmetic of the search (auto: bfloat16 where the processor supports it); successes are
            confirmed in the model's own.
        eight_bit: round to multiples of 1/255, as a PNG file stores them, and count only images that are
            inside the threat model and misclassified then; ``x`` must consist of such multiples.
        allow_random: accept a model whose outputs change from pass to pass.
        classes: how many there are; with 2, one output is read as the logit of class 1.
        progress: True: bars or lines; False: none; None: bars in a terminal or a notebook; or your own.

    Raises:
        ModelError: the model does not behave as a classifier of such images.
        DataError: the images or labels do not fit.
        ConfigError: unknown attack or parameters, no threat model, or a target that is no class.

    Example:
        >>> from torch import nn
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.rand(4, 1, 8, 8)
        >>> perturb(model, x, torch.tensor([0, 1, 2, 3]), Threat("linf", 0.1)).x.shape
        torch.Size([4, 1, 8, 8])
    """
    progress, threat = shown(progress), Threat.of(threat)
    given = {"attack": attack, "seed": seed, "batch_size": batch_size, "precision": precision}
    config = validate(_Settings, given, "advkit.perturb")
    chosen = make(config.attack, threat, parameters)
    data = as_data(x, y)
    n = len(data)
    images = torch.empty(data.images.shape, dtype=torch.float32)
    success, distance = torch.empty(n, dtype=torch.bool), torch.empty(n)
    forwards, backwards = torch.empty(2, n, dtype=torch.int64)
    judged = as_classifier(model, data.shape, classes)
    few, _ = data.batch(torch.arange(min(8, n)), device_of(judged))
    facts = inspect_classifier(judged, few, classes, allow_random=allow_random)
    box = refuse_beyond(judged, config.attack, chosen, surrogated=surrogate is not None)
    if box is None and not facts.differentiable and surrogate is None and chosen.access == "gradients":
        raise ModelError(f"attack {config.attack!r} needs gradients, and the model {NO_GRADIENTS}")
    with (
        counted(judged, data.ids.tolist()) as account,
        evaluation_mode(judged),
        evaluation_mode(surrogate or judged),
        progress.task(config.attack, n, unit="image") as task,
    ):

        def keep(found: Found) -> None:
            at = found.index
            images[at], success[at], distance[at] = found.x, found.broken, found.distance
            forwards[at], backwards[at] = found.forwards, found.backwards
            task.advance()

        clean = logits_of(judged, data)
        refuse_misfit(clean, data)
        threat.refuse_misfit(data.shape)
        search = searching(
            judged,
            data,
            chosen,
            name=config.attack,
            seed=config.seed,
            batch_size=config.batch_size,
            precision=config.precision,
            clean=clean,
            target_class=None if target is None else _targets(target, data, clean.shape[1]),
            eight_bit=eight_bit,
            surrogate=surrogate,
        )
        search.run(torch.arange(n), keep, task.underway)
    if account is not None:
        forwards = torch.tensor([account.sent[sample] for sample in data.ids.tolist()])
    device = x.device if isinstance(x, Tensor) else "cpu"
    made = images.to(device).as_subclass(Perturbed)
    made.notes = facts.notes
    made.success, made.distance = success.to(device), distance.to(device)
    made.forwards, made.backwards = forwards.to(device), backwards.to(device)
    return made


def _targets(target: Any, data: Data, classes: int) -> Tensor:
    """(N,) target classes, of one class or of (N,): whole numbers of any type, or one-hot rows."""
    try:
        given = torch.as_tensor(target).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError("the targets are no array of classes; give one class, or (N,) classes") from error
    n, shape = len(data), tuple(given.shape)
    numbers = not (given.is_complex() or given.dtype == torch.bool) or shape == (n, classes)
    if numbers and shape in ((n, classes), (classes,)) and shape != (n,) and _one_hot(given):
        given = given.to(torch.uint8).argmax(-1)
    elif shape == (n, 1):
        given = given[:, 0]
    if given.dim() == 0:
        given = given.expand(n)
    whole = numbers and given.shape == (n,) and bool((given == given.long()).all())
    if not whole:
        kind = str(given.dtype).removeprefix("torch.")
        raise ConfigError(
            f"the targets have shape {shape} and type {kind}; give one class, or {n} whole numbers from 0 to "
            f"{classes - 1}, or one-hot rows ({n}, {classes})"
        )
    low, high = (int(bound) for bound in given.aminmax())
    if low < 0 or high >= classes:
        raise ConfigError(f"the targets range from {low} to {high}, but the classes from 0 to {classes - 1}")
    if bool((given.long() == data.labels).all()):
        raise ConfigError("the target of every image is its own class; give other classes, or no targets")
    return given.long()


def _one_hot(given: Tensor) -> bool:
    """Whether each row is one 1 among zeros."""
    return bool(((given == 0) | (given == 1)).all() and (given.sum(-1) == 1).all())


def refuse_beyond(
    model: nn.Module, name: str, attack: Attack[Any], *, surrogated: bool = False
) -> BlackBox | None:
    """Raises a ConfigError if an attack wants more than a black box answers; returns the black box.

    Args:
        surrogated: gradients are those of another model.
    """
    box = black_box(model)
    if box is None or (surrogated and attack.access == "gradients" and not attack.single_image):
        return box
    if attack.access == "gradients" or (attack.access == "scores" and box.access == "decisions"):
        raise ConfigError(
            f"{name} needs {attack.access}, and the black box gives {box.access} alone; choose square for "
            "scores, hop-skip-jump for decisions, or leave the attack out",
            code="black-box-access",
        )
    return box


def refuse_misfit(clean: Tensor, images: Data) -> None:
    """Raises an error if the model's logits (N, K) on the images are not finite, or of too few classes."""
    images.refuse_labels_beyond(clean.shape[1])
    bad = int((~clean.isfinite().all(1)).sum())
    if bad:
        raise ModelError(
            f"the model gives NaN or infinite logits on {bad} of {len(clean)} clean images; "
            "correct the model or its normalisation before attacking it"
        )


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
        ids: (N,) sample ids; (seed, id, step) determines the random numbers.
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
        name: the attack's name, which seeds its random numbers.
        batch_size: tuned if None.
        precision: arithmetic of the search; minimum-norm searches and fine attacks always use float32.
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
    twin = search_model(
        surrogate or model, "float32" if nearest or attack.fine else precision, few, attack.access
    )
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
    box = black_box(model)
    classes = box.known if box is not None else model(images).shape[1]
    others = surrogate(images).shape[1]
    if classes not in (None, others):
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
