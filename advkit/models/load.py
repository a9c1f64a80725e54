"""Loading any model: a file, a run folder, the store, torchvision, a function, or a module in hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from advkit.core.notes import Note
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
    weights_key: str | None = None

    @property
    def assumed(self) -> list[Note]:
        """The note for a foreign model of which nothing was said."""
        if self.preprocessing == Preprocessing():
            said = "pixels in [0, 1] without normalisation were assumed"
            return [Note("normalisation-assumed", f"{said} (--mean and --std say the one of the training)")]
        return []


def load_model(
    where: str | Path | nn.Module,
    *,
    role: Role | None = None,
    arch: str | None = None,
    shape: Shape | None = None,
    classes: int | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
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
        weights_key: which state dict of a file that holds several: its key, or the prefix of its names.
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
    _refuse_other_units(said)
    hints = _Hints(role, arch, shape, classes, said, weights_key)
    if not isinstance(where, nn.Module | str | Path):
        raise ModelError(
            f"a {type(where).__name__} is no model: give a torch.nn.Module, a file or a name; a function f "
            "of tensors becomes one by: class F(torch.nn.Module): forward = staticmethod(f)"
        )
    if isinstance(where, nn.Module):
        if any(said is not None for said in (arch, weights, weights_key)):
            raise ConfigError("a module in hand has its weights; leave arch, weights and weights_key out")
        model = _of_module(where, hints)
    else:
        model = _find(where, hints, weights, store or Store())
    if role is not None and model.card.role != role:
        named = type(where).__name__ if isinstance(where, nn.Module) else where
        raise ModelError(f"{named} is a {model.card.role}, but a {role} is wanted here; name another")
    return (model if device is None else model.to(devices.choose(device))).eval()


def _refuse_other_units(said: Preprocessing) -> None:
    """Raises a `ConfigError` for a mean that no pixel can have, or a deviation beyond the whole range."""
    low, high = said.pixel_range
    if any(not low <= mean <= high for mean in said.mean) or any(std > high - low for std in said.std):
        raise ConfigError(
            f"mean {said.mean} and std {said.std} do not fit pixels from {low:g} to {high:g}, in whose "
            "units they are; divide them by 255, or say --pixel-range 0,255 (pixel_range=(0, 255))"
        )


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
    if made and weights in (None, "none") and hints.weights_key is not None:
        raise ConfigError(f"{text} is named without a file of weights; leave --weights-key out")
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
        return _of_store(store, text, hints)
    if path.is_dir():
        return _of_file(_in_folder(path, hints.role), hints, hints.arch)
    if isinstance(where, Path) or path.suffix in _FILES or len(path.parts) > 1:
        return _of_file(path, hints, hints.arch)  # it is not there, and that is said in a file's words
    try:
        store.hash(text)
    except ModelError as error:
        if error.code != "model-not-found":  # its name is damaged
            raise
        near = did_you_mean(text, store.names())
        way = "`advkit models ls` lists the store"
        if text in ARCHITECTURES:
            way = f"it is an architecture, whose weights one names with --arch {text}"
        raise ModelError(
            f"there is no model {text!r}{near}: it is no file, run folder, name in the store, "
            f"torchvision:NAME or package.module:function; {way}",
            code="model-not-found",
        ) from error
    return _of_store(store, text, hints)


def _of_store(store: Store, name: str, hints: _Hints) -> Model:
    model = _of_file(store.path(name), hints, hints.arch)
    store.refuse_other(name, model)
    return model


def _of_file(path: Path, hints: _Hints, arch: str | None) -> Model:
    found = open_checkpoint(path, arch=arch, weights_key=hints.weights_key)
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
    state, notes = _in_float32(state)
    if arch is not None and arch.startswith(foreign.TORCHVISION):
        return _of_torchvision(arch, hints, state, path, notes)
    if arch is not None and ":" in arch:
        with rng.scope("cpu", 0, "build"):
            module = foreign.factory_module(arch)
        inner = module.network if isinstance(module, Model) else module
        found = _matched(state, inner, f"{path} does not fit {arch}")
        load_weights(inner, found.state, f"{path} does not fit {arch}")
        refuse_nonfinite(inner, str(path), "take another copy")
        return _of_module(module, hints, arch, found, notes)
    registered = [entry.name for entry in ARCHITECTURES if entry.facts["role"] == "classifier"]
    names = registered if arch is None else [ARCHITECTURES.entry(arch).name]
    fits = match.fits(state, names, hints.shape)
    if len(fits) > 1:
        raise ConfigError(
            f"{path} has no card, and its weights fit {', '.join(fit.architecture for fit in fits)}; "
            "say which with --arch"
        )
    if not fits and arch is not None:
        raise ModelError(
            f"{path} does not fit architecture {arch!r}: {match.misfit(state, names[0], hints.shape)}; "
            "leave --arch out to try every classifier"
        )
    if not fits:
        raise ModelError(
            f"{path} has no card, and its weights fit none of the registered classifiers "
            f"({', '.join(registered)}); name its network with --arch: torchvision:NAME or "
            "package.module:function"
        )
    fit = fits[0]
    images = by_size(fit.shape)
    notes = [
        Note("architecture-found", f"a bare state dict, read as {fit.architecture!r} on {images} images"),
        *notes,
    ]
    if fit.size_open and fit.shape != hints.shape:
        notes.append(Note("size-assumed", f"the weights leave the image size open and {images} was assumed"))
    hints = replace(hints, shape=fit.shape)
    preprocessing, said = _read_in(fit.match, hints)
    card, notes = _card(
        hints,
        role=ARCHITECTURES.entry(fit.architecture).facts["role"],
        architecture=fit.architecture,
        shape=fit.shape,
        classes=fit.classes,
        preprocessing=preprocessing,
        notes=[*notes, *said],
    )
    model = assemble(card, fit.match.state, str(path))
    return Model(model.network, card, notes).eval()


def _in_float32(state: State) -> tuple[State, list[Note]]:
    """Weights of another precision are computed with in float32, as images are."""
    others = {str(tensor.dtype)[6:] for tensor in state.values() if tensor.is_floating_point()} - {"float32"}
    if not others:
        return state, []
    said = f"the weights are {' and '.join(sorted(others))}; they are computed with in float32"
    converted = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }
    return converted, [Note("weights-converted", said)]


def _matched(state: State, network: nn.Module, trouble: str) -> match.Match:
    """The weights of ``network`` in ``state``."""
    own = {name: tensor.shape for name, tensor in network.state_dict().items() if torch.is_tensor(tensor)}
    try:
        return match.match(state, own)
    except match.Misfit as error:
        raise ModelError(f"{trouble}: {error}; take the file that belongs to the model") from error


def _read_in(found: match.Match, hints: _Hints) -> tuple[Preprocessing, list[Note]]:
    """How a file of weights says that images are normalised, unless the caller does, and the notes on it."""
    notes = []
    if not found.by_name:
        said = "its tensors have other names, and were matched by the numbers in these and by their shapes"
        notes.append(Note("weights-by-shape", said))
    normaliser = {
        named[3]: tuple(tensor.flatten().tolist())
        for name, tensor in found.left.items()
        if (named := match.NORMALISER.fullmatch(name)) and tensor.is_floating_point()
    }
    mean = normaliser.get("mean", normaliser.get("mu", ()))
    std = normaliser.get("std", normaliser.get("sigma", ()))
    channels = hints.shape[0] if hints.shape else max(len(mean), len(std))
    assumed = hints.assumed
    usable = all(len(values) in (0, 1, channels) for values in (mean, std))
    if assumed and (mean or std) and usable and max(mean, default=0.0) <= 1 and min(std, default=1.0) > 0:
        mean, std = (tuple(round(value, 6) for value in values) for values in (mean, std))
        how = f"normalised as the file says (mean {mean}, std {std})"
        return Preprocessing(mean=mean, std=std), [*notes, Note("normalisation-read", how)]
    if found.left:
        names = ", ".join(list(found.left)[:4]) + (", ..." if len(found.left) > 4 else "")
        notes.append(Note("weights-left-out", f"no layer takes {names} of the file; left out"))
    return hints.preprocessing, [*notes, *assumed]


def _of_torchvision(
    where: str, hints: _Hints, state: State | None, path: Path | None = None, said: Sequence[Note] = ()
) -> Model:
    """A classifier of torchvision with the weights ``state``, or untrained."""
    default = foreign.pretrained(where)
    shape, preprocessing = hints.shape or default.shape, hints.preprocessing
    classes = hints.classes if state is None else match.classes_in(state, partial(_sizes, where, shape))
    labels: tuple[str, ...] = ()
    notes = [
        Note("origin", f"torchvision's network with {'its own weights' if path is None else path.name}"),
        *said,
    ]
    if state is None:
        notes = [Note("origin", "torchvision's network, untrained")]
    elif classes == len(default.labels):
        labels = default.labels
        if preprocessing == Preprocessing():
            preprocessing = Preprocessing(mean=default.mean, std=default.std)
            notes.append(Note("normalisation-read", "normalised as torchvision's own weights want it"))
        if foreign.size_bound(where):
            shape = default.shape
        if shape != default.shape:
            notes.append(Note("size-trained", f"trained on images of {by_size(default.shape)}"))
    with rng.scope("cpu", 0, "build"):
        network = foreign.torchvision_network(where, shape=shape, classes=classes)
    if state is not None:
        state = {name: state[name] for name in state if not foreign.AUXILIARY.match(name)}
        found = _matched(state, network, f"{path or where} does not fit {where}")
        load_weights(network, found.state, f"{path or where} does not fit {where}")
        if preprocessing == hints.preprocessing:
            preprocessing, more = _read_in(found, replace(hints, shape=shape))
            notes += more if not labels else [note for note in more if note.code != "normalisation-assumed"]
        refuse_nonfinite(network, str(path or where), "take another copy")
    card, notes = _card(
        hints,
        role="classifier",
        architecture=where,
        shape=shape,
        classes=classes,
        labels=labels,
        preprocessing=preprocessing,
        notes=notes,
    )
    return Model(network, card, notes)


def _sizes(where: str, shape: Shape, classes: int) -> dict[str, torch.Size]:
    """Shapes of the tensors of a torchvision network that is not really built."""
    with torch.device("meta"):
        network = foreign.torchvision_network(where, shape=shape, classes=classes)
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _of_module(
    module: nn.Module,
    hints: _Hints,
    made_by: str | None = None,
    weights: match.Match | None = None,
    notes: Sequence[Note] = (),
) -> Model:
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
    preprocessing, said = hints.preprocessing, [] if isinstance(module, Network) else hints.assumed
    if weights is not None:
        preprocessing, said = _read_in(weights, replace(hints, shape=shape))
    card, notes = _card(
        hints,
        role=role,
        architecture=architecture,
        config=config,
        shape=shape,
        classes=classes,
        preprocessing=preprocessing,
        notes=[*notes, *said],
    )
    model = Model(module, card, notes)
    model.training = getattr(module, "training", False)
    if model.casts:
        kind = str(next(module.parameters()).dtype).removeprefix("torch.")
        how = f"the network computes in {kind}, and is given images of that type"
        model.notes += (Note("weights-converted", how),)
    anything = next(module.parameters(), None)
    return model if anything is None else model.to(anything.device)


def _card(
    hints: _Hints, *, notes: Sequence[Note], architecture: str, **facts: Any
) -> tuple[ModelCard, list[Note]]:
    values = {"preprocessing": hints.preprocessing, **facts, "architecture": architecture}
    values["notes"] = "; ".join(map(str, notes))
    return validate(ModelCard, values, f"model {architecture}"), list(notes)
