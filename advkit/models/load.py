"""Loading any model: a file, a run folder, the store, torchvision, a function, or a module in hand."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from advkit.core import device as devices
from advkit.core.config import validate
from advkit.core.errors import ConfigError, ModelError, by_size, did_you_mean
from advkit.core.in_hand import held
from advkit.core.modes import own_modes
from advkit.core.named import is_named
from advkit.core.notes import Note
from advkit.core.run_list import numbered
from advkit.models import match
from advkit.models.black_box import black_box
from advkit.models.card import ModelCard, Preprocessing, Role, Shape
from advkit.models.checkpoint import State, assemble, open_checkpoint
from advkit.models.door import DOORS, Door, Found, Said, file_door, named_door, object_door
from advkit.models.header import SUFFIXES, read_card, refuse_absent
from advkit.models.model import Model, refuse_meta
from advkit.models.network import ARCHITECTURES, Network
from advkit.models.store import Store
from advkit.models.weights import in_float32, read_in

_FILES = (*SUFFIXES, ".pth", ".ckpt", ".bin", ".tar")
"""What is surely meant as a file even if there is none."""


@own_modes()
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
    allow_torchscript: bool = False,
    access: Literal["scores", "decisions"] | None = None,
    max_queries: int | None = None,
    max_total_queries: int | None = None,
    device: str | None = None,
    store: Store | None = None,
) -> Model:
    """A model on pixels in [0, 1], in eval mode, with its ``.card``.

    Args:
        where: a file, a run folder or its number, a name or the beginning of a hash in the store,
            ``advkit:NAME`` of a model that ships with advkit, ``torchvision:NAME``, ``timm:NAME``,
            ``hf:NAME`` or ``hf:FOLDER`` of transformers, ``package.module:function`` (imported and called
            without arguments), or a module, exported program or black box in hand. Files are checkpoints,
            ``.pt2`` programs of ``torch.export``, ONNX files and TorchScript.
        role: what the model must be; of a foreign one, what it is (a classifier, unless said).
        arch: for weights without a card, their architecture: a registered one, ``torchvision:NAME`` or
            ``package.module:function``; without it, the one registered classifier that fits.
        shape: images of a foreign model, (channels, height, width), where the weights leave it open.
        classes: of a foreign model whose weights do not say.
        weights: for a library's name and functions, a file; ``"none"`` for an untrained network, by default
            the library's own weights.
        weights_key: which state dict of a file that holds several: its key, or the prefix of its names.
        pixel_range: input range of a foreign model, (lowest, highest) pixel value.
        mean: a foreign model's normalisation, per channel, in units of ``pixel_range``.
        std: likewise.
        outputs: what a foreign model gives out.
        allow_torchscript: run a file of TorchScript, which holds code.
        access: the function or object is a black box (`advkit.BlackBox`), which gives these.
        max_queries: of a black box, the largest number of queries about one image.
        max_total_queries: the same in total.
        device: where to put it; None leaves a module in hand where it is and everything else on the CPU.
        store: the model store; by default the user's.

    Raises:
        ModelError: there is no such model, or it cannot be loaded, or it has another role.
        ConfigError: what was said of it contradicts what it says of itself, or is not enough.
    """
    preprocessing = validate(
        Preprocessing,
        {"pixel_range": pixel_range, "mean": tuple(mean), "std": tuple(std), "outputs": outputs},
        "the model's preprocessing",
    )
    _refuse_other_units(preprocessing)
    said = Said(
        role,
        arch,
        shape,
        classes,
        preprocessing,
        weights_key,
        allow_torchscript=allow_torchscript,
        access=access,
        max_queries=max_queries,
        max_total_queries=max_total_queries,
    )
    if isinstance(where, str | Path):
        model = _find(where, said, weights, store or Store())
    else:
        if any(given is not None for given in (arch, weights, weights_key)):
            raise ConfigError("a module in hand has its weights; leave arch, weights and weights_key out")
        model = _in_hand(where, said)
    if black_box(model) is None and (access, max_queries, max_total_queries) != (None, None, None):
        raise ConfigError(
            "--access, --max-queries and --max-total-queries are for a black box: a package.module:function "
            "of arrays with --access, or an object that answers queries; leave them out"
        )
    if role is not None and model.card.role != role:
        named = where if isinstance(where, str | Path) else type(where).__name__
        raise ModelError(f"{named} is a {model.card.role}, but a {role} is wanted here; name another")
    if device is not None:
        refuse_meta(model.network)
        model.to(devices.choose(device))
    return model.eval()


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
    return _in_hand(module, Said(shape=shape, classes=classes))


def as_classifier(model: Any, shape: Shape | None = None, classes: int | None = None) -> Model:
    """What a caller has at hand: a module, wrapped in the mode that it is in, or whatever `load_model` takes.

    Raises:
        ModelError: there is no such model, or it is no classifier of images of that shape.
    """
    if isinstance(model, nn.Module):
        return wrap(model, shape=shape, classes=classes)
    return load_model(model, role="classifier", shape=shape, classes=classes)


def _in_hand(thing: Any, said: Said) -> Model:
    """A module, or an object that a door takes."""
    way = object_door(thing)
    estimator = hasattr(thing, "predict_proba") and not isinstance(thing, nn.Module)
    if way is None and (said.access is not None or estimator):
        way = DOORS.get("black-box")()
    if way is not None:
        return _of_found(way.open(thing, said), said)
    if isinstance(thing, nn.Module):
        return _of_found(Found(thing), said)
    kind = type(thing).__name__
    if isinstance(thing, Mapping):
        how = "weights alone are no model: make the network, and call network.load_state_dict(...) with them"
    elif isinstance(thing, type):
        kind, how = "class", f"give an instance of it: {thing.__name__}(...)"
    elif callable(thing):
        how = (
            "a function f of tensors becomes one by: class F(torch.nn.Module): forward = staticmethod(f); if "
            "it gives no gradients, by: advkit.BlackBox(f, classes=..., shape=...)"
        )
    elif hasattr(thing, "predict"):
        how = (
            "what predicts without gradients becomes one by: advkit.BlackBox(predict, classes=..., shape=...)"
        )
    else:
        how = "give a torch.nn.Module, a file or a name"
    raise ModelError(f"this {kind} is no model; {how}")


def _find(where: str | Path, said: Said, weights: str | Path | None, store: Store) -> Model:
    text, path = str(where), Path(where)
    if (thing := held(where)) is not None:
        return _in_hand(thing, said)
    way = _named(text)
    if way is not None:
        if said.arch is not None:
            raise ConfigError(f"{text} is an architecture itself; leave --arch out")
        if weights is not None and str(weights) != "none":
            return _of_file(Path(weights), said, text)
        if said.weights_key is not None:
            raise ConfigError(f"{text} is named without a file of weights; leave --weights-key out")
        return _of_found(way.open(text, replace(said, untrained=weights is not None)), said)
    if weights is not None:
        raise ConfigError(f"{text} has its own weights; leave --weights out")
    if path.is_file():
        return _of_file(path, said, said.arch)
    if isinstance(where, str) and text in store.names():
        return _of_store(store, text, said)
    if (folder := path if path.is_dir() else numbered(text)) is not None:
        return _of_file(_in_folder(folder, said.role), said, said.arch)
    if isinstance(where, Path) or path.suffix in _FILES or file_door(path) or len(path.parts) > 1:
        return _of_file(path, said, said.arch)  # it is not there, and that is said in a file's words
    try:
        store.hash(text)
    except ModelError as error:
        if error.code != "model-not-found":  # its name is damaged
            raise
        near = did_you_mean(text, store.names())
        way_out = "`advkit models ls` lists the store"
        if text in ARCHITECTURES:
            way_out = f"it is an architecture, whose weights one names with --arch {text}"
        raise ModelError(
            f"there is no model {text!r}{near}: it is no file, run folder, name in the store, "
            f"advkit:NAME, torchvision:NAME, timm:NAME, hf:NAME or package.module:function; {way_out}",
            code="model-not-found",
        ) from error
    return _of_store(store, text, said)


def _of_store(store: Store, name: str, said: Said) -> Model:
    model = _of_file(store.path(name), said, said.arch)
    store.refuse_other(name, model)
    return model


def _named(text: str) -> Door | None:
    """The door to what ``text`` names, unless it is a file of such a name."""
    if (way := named_door(text)) is not None:
        return way
    return DOORS.get("function")() if is_named(text) and not Path(text).exists() else None


def _of_file(path: Path, said: Said, arch: str | None) -> Model:
    if (way := file_door(path)) is not None:
        refuse_absent(path)
        if arch is not None:
            raise ConfigError(f"{path} holds its own network; leave --arch and --weights out")
        return _of_found(way.open(path, replace(said, file=path)), said)
    found = open_checkpoint(path, arch=arch, weights_key=said.weights_key)
    if isinstance(found, Model):
        return _agreed(found, said)
    if arch is not None and ":" in arch:
        way = named_door(arch) or DOORS.get("function")()
        return _of_found(way.open(arch, replace(said, state=found, file=path)), said)
    return _of_state(found, said, arch, path)


def _agreed(model: Model, said: Said) -> Model:
    """``model``, whose card is not to be contradicted."""
    own, other = model.card.preprocessing, said.preprocessing
    if other not in (Preprocessing(), own):
        raise ConfigError(
            f"the model's card says how its inputs are normalised ({own}), and the options differ ({other}); "
            "leave --pixel-range, --mean, --std and --outputs out"
        )
    return model


def _in_folder(folder: Path, role: Role | None) -> Path:
    """The model of a run folder: the one called ``model``, else ``ema``, else the only one, of the role."""
    there = sorted(path for path in folder.iterdir() if path.is_file() and path.stem != "state")
    files = [path for path in there if path.suffix in SUFFIXES]
    others = [path for path in there if path not in files and _is_models(path)]
    if len(files or others) == 1:
        return (files or others)[0]
    roles = {path: _role_in(path) for path in files}
    fitting = [path for path, own in roles.items() if own in (get_args(Role) if role is None else (role,))]
    named = [path for stem in ("model", "ema") for path in fitting if path.stem == stem]
    best = named[0] if named else fitting[0] if len(fitting) == 1 else None
    if best is not None and (best.stem == "model" or "unreadable" not in roles.values()):
        return best
    listed = ", ".join(f"{path.name} ({roles.get(path, 'foreign')})" for path in (*files, *others))
    if listed and not fitting and not others and {*roles.values()} <= {*get_args(Role)}:
        raise ModelError(f"{folder} holds no {role} ({listed}); name another folder")
    if listed:
        raise ConfigError(f"which model of {folder} is meant is open: {listed}; name one of these files")
    raise ModelError(f"{folder} holds no model; name the folder of a run that has made one, or a file")


def _role_in(path: Path) -> str:
    """The role in the card of a file, or why there is none."""
    try:
        card = read_card(path)
    except ModelError:
        return "unreadable"
    return "no card" if card is None else card.role


def _is_models(path: Path) -> bool:
    """Whether the suffix of a file is one of a model; a run's adversarial images are a ``.bin``, too."""
    keys = (".pth", ".ckpt", ".tar", *(key for entry in DOORS for key in entry.facts["keys"]))
    return path.suffix in keys and path.suffix != ""


def _of_state(state: State, said: Said, arch: str | None, path: Path) -> Model:
    """Weights that something else wrote, of a registered architecture."""
    state, notes = in_float32(state)
    registered = [entry.name for entry in ARCHITECTURES if entry.facts["role"] == "classifier"]
    names = registered if arch is None else [ARCHITECTURES.entry(arch).name]
    fits = match.fits(state, names, said.shape)
    if len(fits) > 1:
        raise ConfigError(
            f"{path} has no card, and its weights fit {', '.join(fit.architecture for fit in fits)}; "
            "say which with --arch"
        )
    if not fits and arch is not None:
        raise ModelError(
            f"{path} does not fit architecture {arch!r}: {match.misfit(state, names[0], said.shape)}; "
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
    if fit.size_open and fit.shape != said.shape:
        notes.append(Note("size-assumed", f"the weights leave the image size open and {images} was assumed"))
    preprocessing, more = read_in(fit.match, replace(said, shape=fit.shape))
    card, notes = _card(
        said,
        preprocessing,
        [*notes, *more],
        role=ARCHITECTURES.entry(fit.architecture).facts["role"],
        architecture=fit.architecture,
        shape=fit.shape,
        classes=fit.classes,
    )
    model = assemble(card, fit.match.state, str(path))
    return Model(model.network, card, notes).eval()


def _of_found(found: Found, said: Said) -> Model:
    """A module in hand, or one that a door leads to."""
    network = found.network
    if isinstance(network, Model):
        return _agreed(network, said)
    if any(tensor.is_inference() for tensor in (*network.parameters(), *network.buffers())):
        with torch.inference_mode(False):
            network = copy.deepcopy(network)  # whose tensors have gradients
    facts: dict[str, Any] = {
        "architecture": found.architecture or f"{type(network).__module__}:{type(network).__qualname__}",
        "config": found.config,
        "role": said.role or "classifier",
        "shape": found.shape or said.shape,
        "classes": found.classes or said.classes,
        "labels": found.labels,
    }
    preprocessing = found.preprocessing
    if isinstance(network, Network):
        facts |= {"shape": network.shape, "classes": network.classes}
        preprocessing = preprocessing or said.preprocessing
        entry = next((entry for entry in ARCHITECTURES if entry.thing is type(network)), None)
        if entry is not None:
            facts |= {"architecture": entry.name, "role": entry.facts["role"]}
            facts["config"] = network.config.model_dump(mode="json")
    if facts["shape"] is None:
        raise ConfigError(
            f"{facts['architecture']} does not say what images it takes; give their shape (channels, height, "
            "width), for example shape=(1, 28, 28) or --shape 1,28,28"
        )
    card, notes = _card(said, preprocessing, found.notes, **facts)
    model = Model(network, card, notes)
    model.training = getattr(network, "training", False)
    if model.casts:
        kind = str(next(network.parameters()).dtype).removeprefix("torch.")
        how = f"the network computes in {kind}, and is given images of that type"
        model.notes += (Note("weights-converted", how),)
    anything = next(network.parameters(), None)
    if anything is not None:  # the network stays as it is, perhaps on several devices
        for name, buffer in [*model.named_buffers(recurse=False)]:
            setattr(model, name, buffer.to(anything.device))
    return model


def _card(
    said: Said, own: Preprocessing | None, notes: Sequence[Note], *, architecture: str, **facts: Any
) -> tuple[ModelCard, list[Note]]:
    """A card, with the normalisation that the caller says, else the model's ``own``, else none."""
    preprocessing, found = said.preprocessing, list(notes)
    if said.normalisation_open and own is None:
        how = "pixels in [0, 1] without normalisation were assumed"
        found.append(Note("normalisation-assumed", f"{how} (--mean and --std say the one of the training)"))
    elif said.normalisation_open and own is not None:
        said_so = preprocessing.outputs == "probabilities"
        preprocessing = own.model_copy(update={"outputs": "probabilities"}) if said_so else own
    values = {"preprocessing": preprocessing, **facts, "architecture": architecture}
    values["notes"] = "; ".join(map(str, found))
    return validate(ModelCard, values, f"model {architecture}"), found
