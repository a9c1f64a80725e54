"""Configuration of the measurement of generators; no torch here, so that help is instant."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_serializer

from advkit.core.config import OneOf, StrictModel
from advkit.core.names import DataName, Names


class Judging(StrictModel):
    """Metrics and number of images."""

    data: DataName | None = None
    """Data set to compare with (see `advkit ls data`); by default the one that the model was trained on."""
    n: int = Field(10_000, ge=10)
    """Generated images, and as many real ones; fewer where the test split or half of the training split has
    fewer, since distances depend on n."""
    metrics: Annotated[Names, OneOf("advkit.gan.metric:METRICS")] = ()
    """Metrics (see `advkit ls gan-metrics`), separated by commas; by default all."""
    seed: int = Field(0, ge=0)
    """Which images: every random number follows from it."""


class _Several(StrictModel):
    """A base of its own, so that help lists the models first."""

    model: Names = Field(min_length=1)
    """Generator, or VAE (its decoder is evaluated): a file, a run folder, a name in the store or advkit:NAME
    (such as advkit:digits-gan); several are compared on one page."""

    @field_serializer("model")
    def _one_by_its_name(self, model: tuple[str, ...]) -> str | list[str]:
        return model[0] if len(model) == 1 else list(model)


class GanEvaluation(Judging, _Several):
    """Evaluate generators by features and predictions of the judge, a digit classifier shipped with advkit.

    Each figure is shown beside its floor: the same figure of real images.
    """
