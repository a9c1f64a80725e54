"""Loading any model: a file, a run folder, the store, torchvision, a function, or a module in hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from advkit.core import device as devices
from advkit.core import rng
from advkit.core.config import validate
from advkit.core.errors import ConfigError, ModelError, by_size, did_you_mean
from advkit.core.in_hand import held
from advkit.core.named import is_named
from advkit.models import foreign, match
from advkit.models.card import ModelCard, Preprocessing, Role, Shape
from advkit.models.checkpoint import (
    State,
    assemble,
    load_weights,
    open_checkpoint,
    refuse_nonfinite,
)
from advkit.models.header import SUFFIXES, read_card
from advkit.models.model import Model
from advkit.models.network import ARCHITECTURES, Network
from advkit.models.store import Store

_FILES = (*SUFFIXES, ".pth", ".ckpt", ".bin", ".tar")
"""What is surely meant as a file even if there is none."""


@dataclass(frozen=True)
class _Hints:
    """What the caller says of a model that has no card."""

    role: Role | None
    arch: str | None
    shape: Shape | None
    classes: int | None
    preprocessing: Preprocessing

    @property
    def assumed(self) -> str:
        """The note for a foreign model of which nothing was said."""
        if self.preprocessing == Preprocessing():
            return "pixels in [0, 1] without normalisation were assumed"
        return ""


def load_model(
    where: str | Path | nn.Module,
    *,
    role: Role | None = None,
    arch: str | None = None,
    shape: Shape | None = None,
    classes: int | None = None,
    weights: str | Path | None = None,
    pixel_range: tuple[float, float] = (0.0, 1.0),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    outputs: Literal["logits", "probabilities"] = "logits",
    device: str | None = None,
    store: Store | None = None,
) -> Model:
    """A model on pixels in [0, 1], in eval mode, with its ``.card``.

    Args:
        where: a file, a run folder, a name or the beginning of a hash in the store, ``torchvision:NAME``,
            ``package.module:function`` (imported and called without arguments), or a module in hand.
        role: what the model must be; of a foreign one, what it is (a classifier, unless said).
        arch: for weights without a card, their architecture: a registered one, ``torchvision:NAME`` or
            ``package.module:function``; without it, the one registered classifier that fits.
        shape: images of a foreign model, (channels, height, width), where the weights leave it open.
        classes: of a foreign model whose weights do not say.
        weights: for ``torchvision:NAME`` and functions, a file; ``"none"`` for an untrained torchvision
            network, by default torchvision's own weights.
        pixel_range: input range of a foreign model, (lowest, highest) pixel value.
        mean: a foreign model's normalisation, per channel, in units of ``pixel_range``.
        std: likewise.
        outputs: what a foreign model gives out.
        device: where to put it; None leaves a module in hand where it is and everything else on the CPU.
        store: the model store; by default the user's.

    Raises:
        ModelError: there is no such model, or it cannot be loaded, or it has another role.
        ConfigError: what was said of it contradicts what it says of itself, or is not enough.
    """
    said = validate(
        Preprocessing,
        {"pixel_range": pixel_range, "mean": tuple(mean), "std": tuple(std), "outputs": outputs},
        "the model's preprocessing",
    )
    hints = _Hints(role, arch, shape, classes, said)
    if isinstance(where, nn.Module):
        if arch is not None or weights is not None:
            raise ConfigError("a module in hand has an architecture and weights; leave arch and weights out")
        model = _of_module(where, hints)
    else:
        model = _find(where, hints, weights, store or Store())
    if role is not None and model.card.role != role:
        named = type(where).__name__ if isinstance(where, nn.Module) else where
        raise ModelError(f"{named} is a {model.card.role}, but a {role} is wanted here; name another")
    return (model if device is None else model.to(devices.choose(device))).eval()


def wrap(module: nn.Module, *, shape: Shape | None = None, classes: int | None = None) -> Model:
    """A module in hand as a `Model`, like `load_model` but in the mode that it is in."""
    return _of_module(module, _Hints(None, None, shape, classes, Preprocessing()))


def as_classifier(model: nn.Module | str | Path, shape: Shape | None = None) -> Model:
    """What a caller has at hand: a module, wrapped in the mode that it is in, or whatever `load_model` takes.

    Raises:
        ModelError: there is no such model, or it is no classifier of images of that shape.
    """
    if isinstance(model, nn.Module):
        return wrap(model, shape=shape)
    return load_model(model, role="classifier", shape=shape)


def _find(where: str | Path, hints: _Hints, weights: str | Path | None, store: Store) -> Model:
    text, path = str(where), Path(where)
    if (module := held(where)) is not None:
        return _of_module(module, hints)
    # What a function or torchvision makes, and not a file of that strange name.
    made = text.startswith(foreign.TORCHVISION) or (is_named(text) and not path.exists())
    if weights is not None and not made:
        raise ConfigError(f"{text} has its own weights; leave --weights out")
    if made and hints.arch is not None:
        raise ConfigError(f"{text} is an architecture itself; leave --arch out")
    if made and weights is not None and str(weights) != "none":
        return _of_file(Path(weights), hints, text)
    if text.startswith(foreign.TORCHVISION):
        return _of_torchvision(text, hints, foreign.download(text) if weights is None else None)
    if made:
        with rng.scope("cpu", 0, "build"):
            return _of_module(foreign.factory_module(text), hints, text)
    if path.is_file():
        return _of_file(path, hints, hints.arch)
    if isinstance(where, str) and text in store.names():
        return _of_file(store.path(text), hints, hints.arch)
    if path.is_dir():
        return _of_file(_in_folder(path, hints.role), hints, hints.arch)
    if isinstance(where, Path) or path.suffix in _FILES or len(path.parts) > 1:
        return _of_file(path, hints, hints.arch)  # it is not there, and that is said in a file's words
    try:
        found = store.path(text)
    except ModelError as error:
        near = did_you_mean(text, store.names())
        way = "`advkit models ls` lists the store"
        if text in ARCHITECTURES:
            way = f"it is an architecture, whose weights one names with --arch {text}"
        raise ModelError(
            f"there is no model {text!r}{near}: it is no file, run folder, name in the store, "
            f"torchvision:NAME or package.module:function; {way}",
            code="model-not-found",
        ) from error
    return _of_file(found, hints, hints.arch)


def _of_file(path: Path, hints: _Hints, arch: str | None) -> Model:
    found = open_checkpoint(path, arch=arch)
    if not isinstance(found, Model):
        return _of_state(found, hints, arch, path)
    return _agreed(found, hints)


def _agreed(model: Model, hints: _Hints) -> Model:
    """``model``, whose card is not to be contradicted."""
    said, own = hints.preprocessing, model.card.preprocessing
    if said not in (Preprocessing(), own):
        raise ConfigError(
            f"the model's card says how its inputs are normalised ({own}), and the options differ ({said}); "
            "leave --pixel-range, --mean, --std and --outputs out"
        )
    return model


def _in_folder(folder: Path, role: Role | None) -> Path:
    """The model of a run folder: the one called ``model``, else ``ema``, else the only one, of the role."""
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.stem != "state")
    if len(files) == 1:
        return files[0]
    roles = {path: card.role for path in files if (card := read_card(path)) is not None}
    fitting = [path for path, own in roles.items() if role in (None, own)]
    for stem in ("model", "ema"):
        if named := [path for path in fitting if path.stem == stem]:
            return named[0]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"{path.name} ({roles.get(path, 'no card')})" for path in files)
    if fitting:
        raise ConfigError(f"{folder} holds several models: {listed}; name one of these files")
    if files:
        raise ModelError(f"{folder} holds no {role or 'model with a card'} ({listed}); name another folder")
    raise ModelError(f"{folder} holds no model; name the folder of a run that has made one, or a file")


def _of_state(state: State, hints: _Hints, arch: str | None, path: Path) -> Model:
    """Weights that something else wrote."""
    if arch is not None and arch.startswith(foreign.TORCHVISION):
        return _of_torchvision(arch, hints, state, path)
    if arch is not None and ":" in arch:
        with rng.scope("cpu", 0, "build"):
            module = foreign.factory_module(arch)
        inner = module.network if isinstance(module, Model) else module
        load_weights(inner, _renamed(state, inner), f"{path} does not fit {arch}")
        return _of_module(module, hints, arch)
    registered = [entry.name for entry in ARCHITECTURES if entry.facts["role"] == "classifier"]
    names = registered if arch is None else [ARCHITECTURES.entry(arch).name]
    found = match.fits(state, names, hints.shape)
    if len(found) > 1:
        raise ConfigError(
            f"{path} has no card, and its weights fit {', '.join(fit.architecture for fit in found)}; "
            "say which with --arch"
        )
    if not found and arch is not None:
        raise ModelError(
            f"{path} does not fit architecture {arch!r}: {match.misfit(state, names[0], hints.shape)}; "
            "leave --arch out to try every classifier"
        )
    if not found:
        raise ModelError(
            f"{path} has no card, and its weights fit none of the registered classifiers "
            f"({', '.join(registered)}); name its network with --arch: torchvision:NAME or "
            "package.module:function"
        )
    fit = found[0]
    images = by_size(fit.shape)
    notes = [
        f"a bare state dict, read as {fit.architecture!r} on {images} images",
        "its tensors were taken in their order, since the names differ" if fit.by_order else "",
        f"the weights leave the image size open and {images} was assumed" if _guessed(fit, hints) else "",
        hints.assumed,
    ]
    card = _card(
        hints,
        role=ARCHITECTURES.entry(fit.architecture).facts["role"],
        architecture=fit.architecture,
        shape=fit.shape,
        classes=fit.classes,
        notes=notes,
    )
    return assemble(card, fit.state, str(path))


def _guessed(fit: match.Fit, hints: _Hints) -> bool:
    return fit.size_open and fit.shape != hints.shape


def _renamed(state: State, network: nn.Module) -> State:
    """``state`` under the network's own names if it fits; else as it is, to be complained of."""
    return match.rename(state, {name: tensor.shape for name, tensor in network.state_dict().items()}) or state


def _of_torchvision(where: str, hints: _Hints, state: State | None, path: Path | None = None) -> Model:
    """A classifier of torchvision with the weights ``state``, or untrained."""
    default = foreign.pretrained(where)
    shape, preprocessing = hints.shape or default.shape, hints.preprocessing
    classes = hints.classes if state is None else match.classes_in(state, partial(_sizes, where, shape))
    labels: tuple[str, ...] = ()
    notes = [f"torchvision's network with {'its own weights' if path is None else path.name}"]
    if state is None:
        notes = ["torchvision's network, untrained"]
    elif classes == len(default.labels):
        labels = default.labels
        if preprocessing == Preprocessing():
            preprocessing = Preprocessing(mean=default.mean, std=default.std)
            notes.append("normalised as torchvision's own weights want it")
        if foreign.size_bound(where):
            shape = default.shape
        if shape != default.shape:
            notes.append(f"trained on images of {'x'.join(map(str, default.shape))}")
    else:
        notes.append(hints.assumed)
    with rng.scope("cpu", 0, "build"):
        network = foreign.torchvision_network(where, shape=shape, classes=classes)
    if state is not None:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(foreign.AUXILIARY)}
        load_weights(network, _renamed(state, network), f"{path or where} does not fit {where}")
        refuse_nonfinite(network, str(path or where), "take another copy")
    card = _card(
        hints,
        role="classifier",
        architecture=where,
        shape=shape,
        classes=classes,
        labels=labels,
        preprocessing=preprocessing,
        notes=notes,
    )
    return Model(network, card)


def _sizes(where: str, shape: Shape, classes: int) -> dict[str, torch.Size]:
    """Shapes of the tensors of a torchvision network that is not really built."""
    with torch.device("meta"):
        network = foreign.torchvision_network(where, shape=shape, classes=classes)
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _of_module(module: nn.Module, hints: _Hints, made_by: str | None = None) -> Model:
    """A module in hand, or one that a function has made."""
    if isinstance(module, Model):
        return _agreed(module, hints)
    architecture = made_by or f"{type(module).__module__}:{type(module).__qualname__}"
    config: dict[str, Any] = {}
    role, shape, classes = hints.role or "classifier", hints.shape, hints.classes
    if isinstance(module, Network):
        entry = next((entry for entry in ARCHITECTURES if entry.thing is type(module)), None)
        shape, classes = module.shape, module.classes
        if entry is not None:
            architecture, role = entry.name, entry.facts["role"]
            config = module.config.model_dump(mode="json")
    if shape is None:
        raise ConfigError(
            f"{architecture} does not say what images it takes; give their shape (channels, height, width), "
            "for example shape=(1, 28, 28) or --shape 1,28,28"
        )
    notes = [] if isinstance(module, Network) else [hints.assumed]
    card = _card(
        hints, role=role, architecture=architecture, config=config, shape=shape, classes=classes, notes=notes
    )
    model = Model(module, card)
    model.training = module.training
    anything = next(module.parameters(), None)
    return model if anything is None else model.to(anything.device)


def _card(hints: _Hints, *, notes: Sequence[str], architecture: str, **facts: Any) -> ModelCard:
    said = "; ".join(note for note in notes if note)
    values = {"preprocessing": hints.preprocessing, **facts, "architecture": architecture, "notes": said}
    return validate(ModelCard, values, f"model {architecture}")
