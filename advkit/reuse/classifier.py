"""Classifiers with the architecture of a discriminator or of a VAE's encoder, and with its weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from advkit.core import rng
from advkit.core.errors import ConfigError, DataError, ModelError, by_size
from advkit.data.data import Data
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import ARCHITECTURES, build

PARTS = {"discriminator": "network.trunk", "vae": "network.encoder"}
"""The submodule of the classifiers made here that is reused, by the role of what it comes from."""
LEFT_OUT = {"discriminator": "head.", "vae": "decoder."}
"""What the names of the parameters begin with that are not reused."""


def untrained(
    architecture: str, config: dict[str, Any], data: Data, seed: int, option: str = "--arch", **about: Any
) -> Model:
    """An untrained classifier of the images and classes of ``data``.

    Args:
        architecture: a classifier's.
        option: the one to name another architecture with.

    Raises:
        ConfigError: unknown names or parameters, or an architecture of another role.
    """
    entry = ARCHITECTURES.entry(architecture)
    if (role := entry.facts["role"]) != "classifier":
        raise ConfigError(
            f"architecture {architecture!r} is a {role}; name a classifier with {option} "
            "(`advkit ls architectures`)"
        )
    about |= {"role": "classifier", "architecture": entry.name, "config": config}
    with rng.scope("cpu", seed, "init"):
        network = build(entry.name, shape=data.shape, classes=data.classes, config=config)
    return Model(network, ModelCard(**about, shape=data.shape, classes=data.classes, labels=data.class_names))


def from_scratch(source: Model, data: Data, seed: int) -> Model:
    """An untrained classifier of ``data``: the architecture of ``source`` under a fresh layer.

    Args:
        source: a discriminator, or a VAE, whose encoder is meant.
        data: images of the shape that it takes.

    Raises:
        DataError: the images are not those that it takes.
        ModelError: its architecture is not a registered one, or of another role.
    """
    card = source.card
    if card.shape != data.shape:
        theirs, ours = map(by_size, (card.shape, data.shape))
        raise DataError(
            f"the {card.role} takes {theirs} images but those of {data.name!r} are {ours} "
            "(channels x height x width); choose the data that it was trained on"
        )
    if card.architecture not in ARCHITECTURES:
        raise ModelError(
            f"the architecture {card.architecture!r} is not registered, so advkit cannot find its "
            "features before the last layer; give a discriminator or a VAE that advkit trained"
        )
    if card.role not in PARTS:
        raise ModelError(f"a {card.role} has no features to reuse; give a discriminator or a VAE")
    return untrained(*_architecture(card), data, seed, preprocessing=card.preprocessing)


def pretrained(source: Model, data: Data, seed: int) -> Model:
    """The classifier of `from_scratch` with the weights of ``source`` in all but the last layer."""
    model, role = from_scratch(source, data, seed), source.card.role
    weights = source.network.state_dict()
    kept = {name: value for name, value in weights.items() if not name.startswith(LEFT_OUT[role])}
    model.get_submodule(PARTS[role]).load_state_dict(kept)
    return model


def layer_rates(model: Model, part: str, rate: float, decay: float) -> dict[str, float]:
    """Factors of the learning rate for `advkit.training.loop.fit`, by the beginnings of parameters' names.

    A layer is a module with weights (parameters of two dimensions and more); normalisation belongs to the
    layer before it. The last layer of ``part`` gets ``rate``, each one below it ``decay`` times that of the
    one above.
    """
    layers: list[list[str]] = []
    for name, module in model.get_submodule(part).named_modules():
        if "parametrizations" in name.split("."):
            continue  # these are parameters of the module that has them
        own = [*module.parameters(recurse=False), *_parametrised(module)]
        if not own:
            continue
        if not layers or any(parameter.dim() > 1 for parameter in own):
            layers.append([])
        layers[-1].append(f"{part}.{name}." if name else f"{part}.")
    factors = {start: rate * decay**above for above, names in enumerate(reversed(layers)) for start in names}
    return dict(sorted(factors.items(), key=lambda item: -len(item[0])))  # the innermost module counts


def _parametrised(module: nn.Module) -> list[nn.Parameter]:
    inner: Any = getattr(module, "parametrizations", None)
    return [] if inner is None else list(inner.parameters())


def _architecture(card: ModelCard) -> tuple[str, dict[str, Any]]:
    if card.role == "vae":
        return "encoder-classifier", {"encoder": card.architecture, "encoder_config": card.config}
    config: dict[str, Any] = {"trunk": card.architecture, "trunk_config": card.config}
    return "trunk-classifier", config | ({"trunk_classes": card.classes} if card.classes else {})
