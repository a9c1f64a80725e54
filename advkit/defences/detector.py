"""Detectors: initialisation (fresh, or from a GAN's discriminator), training objective, final model."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.core import rng
from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError
from advkit.data.data import Data
from advkit.defences.examples import CLASSES
from advkit.defences.settings import DetectorTraining
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import ARCHITECTURES, build
from advkit.reuse.classifier import pretrained
from advkit.training.objective import Batch, Objective


class Detect(Objective):
    """Cross-entropy with class weights that balance clean and adversarial images.

    Args:
        data: the training data, of classes 0 and 1.
    """

    needs_threat = False

    def __init__(self, data: Data) -> None:
        super().__init__(StrictModel())
        self._weights = len(data) / (2 * data.labels.bincount(minlength=2).float())

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted mean over the batch, and the logits of the two classes."""
        self._weights = self._weights.to(x.device)
        logits = model(x)
        return (self._weights[y] * cross_entropy(logits, y, reduction="none")).mean(), logits


def learner(config: DetectorTraining, data: Data, source: Model | None) -> Model:
    """An untrained classifier of two classes, clean and adversarial.

    Args:
        data: images of its input shape.
        source: a discriminator whose features initialise it instead.

    Raises:
        ConfigError: unknown names or parameters, or an architecture of another role than classifier.
        DataError: images of another shape than the discriminator's.
    """
    two = replace(data, labels=torch.zeros_like(data.labels), class_names=CLASSES)
    if source is not None:
        return pretrained(source, two, config.seed)
    entry = ARCHITECTURES.entry(config.detector_arch)
    if entry.facts["role"] != "classifier":
        raise ConfigError(
            f"architecture {config.detector_arch!r} is a {entry.facts['role']}; name a classifier's with "
            "--detector-arch (`advkit ls architectures`)"
        )
    with rng.scope("cpu", config.seed, "init"):
        network = build(entry.name, shape=two.shape, classes=2, config=config.architecture)
    about = {"role": "classifier", "architecture": entry.name, "config": config.architecture}
    return Model(network, ModelCard(**about, shape=two.shape, classes=2, labels=CLASSES))


def as_detector(learnt: Model) -> Model:
    """The trained classifier of two classes as a detector, with a card of its own."""
    card = learnt.card
    settings = {"network": card.architecture, "network_config": card.config}
    with rng.scope("cpu", 0, "build"):
        network = build("detector", shape=card.shape, config=settings)
    network.get_submodule("network").load_state_dict(learnt.network.state_dict())
    about = {"role": "detector", "architecture": "detector", "config": settings, "shape": card.shape}
    return Model(network, ModelCard(**about, preprocessing=card.preprocessing)).eval()
