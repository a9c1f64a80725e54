"""The result of GAN inversion, as a versioned file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stored import SummarisedResult
from advkit.models.card import DataFacts


class Reached(StrictModel):
    """One image."""

    id: int
    """Its position in the split."""
    label: int
    error: float
    """Mean squared error of the reconstruction, for pixels in [0, 1]."""
    start_error: float
    """The least error of the starts before any step: that of random sampling."""
    nearest_error: float
    """Error of the nearest training image."""
    nearest_id: int
    """Its position in the training split."""
    start: int
    """The best start."""


class InversionResult(SummarisedResult):
    """All images, and means over them."""

    command = "gan-invert"
    schema_name: Literal["advkit/inversion"] = Field("advkit/inversion", alias="schema")
    model: str
    """As given."""
    model_hash: str
    data: DataFacts
    train: DataFacts
    """Source of the nearest images."""
    settings: dict[str, Any]
    """All parameters, defaults too."""
    n: int
    error: float
    """Mean over the images."""
    start_error: float
    nearest_error: float
    nearer: int
    """Images whose reconstruction is closer than the nearest training image."""
    images: tuple[Reached, ...]
    seconds: float
    environment: dict[str, str]

    def summary(self) -> str:
        """One line of text."""
        return (
            f"mean squared error {self.error:.4f} over {self.n} images of {self.data.name}; "
            f"{self.nearest_error:.4f} for the nearest training images, {self.start_error:.4f} for the starts"
        )
