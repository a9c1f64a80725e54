"""Settings for the model that a command is given, and its data; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.names import Architecture, DataName


class ForeignModel(StrictModel):
    """Keys for models without a card; a model with one needs none of them."""

    weights: str | None = None
    """Weights file, for torchvision:NAME and package.module:function."""
    shape: tuple[int, int, int] | None = None
    """Image shape of a foreign model: channels, height, width; by default those of the data."""
    pixel_range: tuple[float, float] = (0.0, 1.0)
    """Input range of a foreign model: (lowest, highest) pixel value."""
    mean: tuple[float, ...] = ()
    """A foreign model's normalisation, per channel, in units of its pixel range."""
    std: tuple[float, ...] = ()
    """A foreign model's normalisation, per channel, in units of its pixel range."""
    outputs: Literal["logits", "probabilities"] = "logits"
    """Outputs of a foreign model."""

    @property
    def said(self) -> dict[str, Any]:
        """The same as arguments of `advkit.load_model`."""
        return {name: getattr(self, name) for name in ForeignModel.model_fields}


class SubjectFields(StrictModel):
    """A base of its own, so that help lists these options first."""

    model: str
    """Classifier: a file, a run folder, a name in the store, torchvision:NAME, package.module:function."""
    data: DataName | None = None
    """Data set (see `advkit ls data`); by default what the classifier was trained on."""
    split: Literal["test", "train"] = "test"
    """Which part of the data."""
    n: int | None = Field(None, ge=1)
    """Use only the first N images."""
    arch: Architecture | None = None
    """For weights without a card: their architecture (see `advkit ls architectures`)."""


class SubjectSettings(ForeignModel, SubjectFields):
    """A classifier, and the images that it is evaluated on."""
