"""Settings for a model that advkit did not write; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Any, Literal

from advkit.core.config import StrictModel


class ForeignModel(StrictModel):
    """Keys for models without a card; a model with one needs none of them."""

    weights: str | None = None
    """Weights file, for torchvision:NAME and package.module:function."""
    weights_key: str | None = None
    """Which state dict of a file that holds several: its key, or the prefix of its names."""
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
