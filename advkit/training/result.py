"""The results of trainings, as versioned files."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stored import StoredResult
from advkit.models.card import DataFacts, ModelCard


class NamedModel(StrictModel):
    """A model that was given."""

    name: str
    """As given."""
    hash: str


class SavedModel(StrictModel):
    """A model that was made."""

    name: str
    """In the model store."""
    hash: str
    files: tuple[str, ...]


class CardedModel(SavedModel):
    """A model that was made, with its card."""

    card: ModelCard


class ModelTraining(StoredResult):
    """What every training of one model leaves."""

    config: dict[str, Any]
    """All settings, defaults too."""
    model: SavedModel
    card: ModelCard
    images_per_second: float
    """Training images per second."""


class Counts(StrictModel):
    """Test images that are classified correctly."""

    clean: int
    robust: int | None
    """Under the attack; None where nothing was attacked."""
    n: int


class BeforeAndAfter(StrictModel):
    """A classifier before and after the training."""

    data: DataFacts
    attack: str
    parameters: dict[str, Any]
    before: Counts | None
    """None for a training from scratch."""
    after: Counts


class TrainingResult(ModelTraining):
    """One classifier, trained on clean images or adversarially."""

    command = "adv-train or train"
    added = ("held_out",)
    schema_name: Literal["advkit/training"] = Field("advkit/training", alias="schema")
    beside: dict[str, str] = {}
    """Models trained beside the classifier: their roles, by their names in the store."""
    kept_step: int
    """Update of the checkpoint that was kept."""
    held_out: int | None = None
    """Images that chose it; None where there were none, and in results of earlier versions."""
    warnings: tuple[str, ...]
    """What the monitor said, each once."""
    test: BeforeAndAfter
