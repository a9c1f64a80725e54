"""Converts models: advkit's to an estimator of ART, and ART's, with its defences, to an advkit model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from advkit.attacks.perturb import device_of
from advkit.core.errors import ModelError
from advkit.integrations.art_defences import Defence
from advkit.models.card import Preprocessing, Shape
from advkit.models.load import load_model, wrap
from advkit.models.model import Model, evaluation_mode


def to_art(
    model: nn.Module | str | Path,
    *,
    shape: Shape | None = None,
    preprocessing_defences: Any = None,
) -> Any:
    """A classifier as ART's ``PyTorchClassifier`` on pixels in [0, 1], for ART's attacks and metrics.

    Args:
        model: a module from images in [0, 1] to logits, or any argument of `load_model`. ART sets eval mode
            for predictions.
        shape: (channels, height, width) of the images, if the model does not define it.
        preprocessing_defences: of ART, one or a list; they get pixels in [0, 1], (N, C, H, W).

    Raises:
        ModelError: there is no such model.
        ConfigError: neither the model nor ``shape`` defines the shape of the images.
    """
    from art.estimators.classification import PyTorchClassifier

    found = wrap(model, shape=shape) if isinstance(model, nn.Module) else load_model(model, shape=shape)
    device = device_of(found)
    classes = found.card.classes
    if classes is None:
        with torch.no_grad(), evaluation_mode(found):
            classes = found(torch.zeros(1, *found.card.shape, device=device)).shape[1]
    with torch.cuda.device(device if device.type == "cuda" else -1):  # the device that ART will use
        return PyTorchClassifier(
            found,
            nn.CrossEntropyLoss(),
            found.card.shape,
            classes,
            clip_values=(0.0, 1.0),
            preprocessing_defences=preprocessing_defences,
            device_type="gpu" if device.type == "cuda" else "cpu",
        )


def from_art(estimator: Any, *, outputs: Literal["logits", "probabilities"] = "logits") -> Model:
    """ART's ``PyTorchClassifier`` with its preprocessing and its defences, for `evaluate` and `perturb`.

    Defences in PyTorch keep their gradient. Those in NumPy use ART's estimate; where there is none, the
    gradient is that of the identity (BPDA, Athalye et al. 2018), and the model's notes say so.

    Args:
        estimator: an ``art.estimators.classification.PyTorchClassifier``. Its network is shared, not copied.
        outputs: of the network.

    Raises:
        ModelError: another kind of estimator, one with its own way to predict, or postprocessing defences.
    """
    from art.estimators.classification import PyTorchClassifier

    if not isinstance(estimator, PyTorchClassifier):
        raise ModelError(
            f"{type(estimator).__name__} is not a PyTorchClassifier of ART; wrap the network in one, load "
            "the network itself, or make an advkit.BlackBox of what answers queries alone"
        )
    if type(estimator).predict is not PyTorchClassifier.predict:
        raise ModelError(
            f"{type(estimator).__name__} predicts otherwise than its network does on an image, as by votes "
            "on noisy copies (advkit.smooth makes such a classifier, and certifies it); give a "
            "PyTorchClassifier of the network"
        )
    if estimator.postprocessing_defences:
        names = ", ".join(type(part).__name__ for part in estimator.postprocessing_defences)
        raise ModelError(
            f"{names} changes the outputs of the network, which hides its logits from attacks without "
            "changing its robustness; create the PyTorchClassifier without postprocessing_defences"
        )
    network = _Estimated(estimator)
    shape = estimator.input_shape if estimator.channels_first else _rolled(estimator.input_shape)
    model = wrap(network, shape=shape, classes=estimator.nb_classes).eval()
    identity = [{part.name: part.facts()} for part in network.parts if isinstance(part, Defence)]
    card = model.card.model_copy(
        update={
            "architecture": f"art:{type(estimator.model).__module__}:{type(estimator.model).__qualname__}",
            "config": {"preprocessing": identity},
            "preprocessing": Preprocessing(outputs=outputs),
            "notes": "; ".join(network.notes),
        }
    )
    return Model(network, card).eval()


def _rolled(shape: Sequence[int]) -> Shape:
    height, width, channels = shape
    return channels, height, width


class _Estimated(nn.Module):
    """The function of a `PyTorchClassifier` from images in [0, 1], (N, C, H, W), to logits."""

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        self.channels_first = estimator.channels_first
        self.notes: list[str] = []
        if estimator.clip_values is None:
            self.notes.append("the estimator has no clip_values; pixels in [0, 1] are assumed")
        low, high = (0.0, 1.0) if estimator.clip_values is None else estimator.clip_values
        device = estimator.device
        self.register_buffer("low", torch.as_tensor(np.asarray(low), dtype=torch.float32, device=device))
        self.register_buffer("high", torch.as_tensor(np.asarray(high), dtype=torch.float32, device=device))
        operations = [part for part in estimator.preprocessing_operations if part.apply_predict]
        self.parts = nn.Sequential(*(_part(part, self.channels_first, device) for part in operations))
        straight = [p for p in self.parts if isinstance(p, Defence) and p.straight_through]
        self.notes += [
            f"attacks use a straight-through gradient for {p.name}, which has none" for p in straight
        ]
        self.network = estimator.model

    def forward(self, x: Tensor) -> Tensor:
        x = x * (self.high - self.low) + self.low  # type: ignore[operator]
        if not self.channels_first:
            x = x.permute(0, 2, 3, 1)
        logits: Tensor = self.network(self.parts(x))
        return logits


def _part(operation: Any, channels_first: bool, device: torch.device) -> nn.Module:
    from art.preprocessing.standardisation_mean_std.numpy import StandardisationMeanStd
    from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch

    if isinstance(operation, StandardisationMeanStd | StandardisationMeanStdPyTorch):
        return _Standardised(operation.mean, operation.std, channels_first).to(device)
    return Defence(operation)


class _Standardised(nn.Module):
    """Mean and standard deviation: global, per channel, or per value."""

    def __init__(self, mean: Any, std: Any, channels_first: bool) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            values = torch.as_tensor(np.asarray(value), dtype=torch.float32)
            if values.dim() == 1 and channels_first:
                values = values[:, None, None]
            self.register_buffer(name, values)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std  # type: ignore[operator]
