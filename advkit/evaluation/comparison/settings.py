"""Configuration of a comparison; imports no torch, so that help is fast."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from advkit.core.config import parse_names
from advkit.evaluation.settings import Attacking, Evaluation
from advkit.models.foreign_settings import SubjectSettings


class _Compared(Attacking):
    """Options that help lists first."""

    runs: tuple[str, ...] = ()
    """Runs of `advkit attack`, `certify` or `corrupt`, by their numbers or paths, or their result.json."""


class Comparison(SubjectSettings, _Compared):
    """Compare models image by image: which is more robust, and can that be chance?

    RUNS are compared as they are, or else models are first measured, all with the same settings. The images
    must be the same, as must be the threat model and the attacks.
    """

    model: Annotated[tuple[str, ...], BeforeValidator(parse_names)] = ()  # type: ignore[assignment]
    """Instead of runs: classifiers, separated by commas, all first attacked with the settings below; data and
    threat model that these leave open are those of the first."""
    irrelevant: ClassVar = ("batch_size",)

    def evaluation(self, model: str) -> Evaluation:
        """How one of the models is measured."""
        shared = self.model_dump(include=set(Evaluation.model_fields) - {"model"}, exclude_unset=True)
        return Evaluation(model=model, **shared)
