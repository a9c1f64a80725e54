"""How well a generator reaches given images, as a versioned file."""

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
    """Mean squared difference between the image and what the generator makes, of pixels in [0, 1]."""
    start_error: float
    """The least of the starts before any step: what as many draws come to."""
    nearest_error: float
    """That of the nearest training image."""
    nearest_id: int
    """Which one it is."""
    start: int
    """Which start led there."""


class InversionResult(SummarisedResult):
    """All images, and means over them."""

    command = "gan-invert"
    schema_name: Literal["advkit/inversion"] = Field("advkit/inversion", alias="schema")
    model: str
    """As it was given."""
    model_hash: str
    data: DataFacts
    train: DataFacts
    """Where the nearest images come from."""
    settings: dict[str, Any]
    """All parameters, defaults too."""
    n: int
    error: float
    """Mean over the images."""
    start_error: float
    nearest_error: float
    nearer: int
    """Images that the generator reaches more closely than the nearest training image does."""
    images: tuple[Reached, ...]
    seconds: float
    environment: dict[str, str]

    def summary(self) -> str:
        """One line for people."""
        return (
            f"mean squared error {self.error:.4f} over {self.n} images of {self.data.name}; the nearest "
            f"training images come to {self.nearest_error:.4f}, the starts to {self.start_error:.4f}"
        )
