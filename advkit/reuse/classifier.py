"""Classifiers with a discriminator's architecture, and with its weights."""

from __future__ import annotations

from typing import cast

from advkit import rng
from advkit.data.data import Data
from advkit.errors import DataError, ModelError
from advkit.models.architectures.trunk_classifier import TrunkClassifier
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import ARCHITECTURES, build

TRUNK = "network.trunk."
"""What the names of the reused parameters begin with in the classifiers made here."""


def from_scratch(discriminator: Model, data: Data, seed: int) -> Model:
    """An untrained classifier of ``data`` with the discriminator's architecture under a linear layer.

    Raises:
        DataError: the images are not those that the discriminator takes.
        ModelError: its architecture is not a registered one.
    """
    card = discriminator.card
    if card.shape != data.shape:
        theirs, ours = ("x".join(map(str, shape)) for shape in (card.shape, data.shape))
        raise DataError(
            f"the discriminator takes {theirs} images but those of {data.name!r} are {ours} "
            "(channels x height x width); choose the data that it was trained on"
        )
    if card.architecture not in ARCHITECTURES:
        raise ModelError(
            f"the architecture {card.architecture!r} is not registered, so its features cannot be told from "
            "its last layer; give a discriminator that advkit trained"
        )
    config = {"trunk": card.architecture, "trunk_config": card.config}
    with rng.scope("cpu", seed, "init"):
        network = build("trunk-classifier", shape=data.shape, classes=data.classes, config=config)
    return Model(
        network,
        ModelCard(
            role="classifier",
            architecture="trunk-classifier",
            config=config,
            shape=data.shape,
            classes=data.classes,
            labels=data.class_names,
            preprocessing=card.preprocessing,
        ),
    )


def from_discriminator(discriminator: Model, data: Data, seed: int) -> Model:
    """The classifier of `from_scratch` with the discriminator's weights in all but the last layer."""
    model = from_scratch(discriminator, data, seed)
    weights = discriminator.network.state_dict()
    kept = {name: value for name, value in weights.items() if not name.startswith("head.")}
    cast(TrunkClassifier, model.network).trunk.load_state_dict(kept)
    return model
