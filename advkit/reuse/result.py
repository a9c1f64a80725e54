"""The results of training on reused features or few labels, as versioned files."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from advkit.core.config import StrictModel
from advkit.core.stored import TimedResult
from advkit.models.card import DataFacts
from advkit.training.result import ModelTraining


class AttackFacts(StrictModel):
    """The attack of the robust error."""

    attack: str
    parameters: dict[str, Any]
    norm: str
    eps: float


class Errors(StrictModel):
    """Errors of a classifier on the test images."""

    clean: int
    """Of ``n``."""
    n: int
    robust: int | None
    """Of ``attacked``, the ones that are misclassified as they are or under the attack; None without one."""
    attacked: int


class ComparedErrors(StrictModel):
    """Errors of several classifiers on the same test images."""

    data: DataFacts
    n: int
    correct: dict[str, int]
    """Classified correctly, by how the classifier was trained."""
    attack: AttackFacts | None
    errors: dict[str, Errors]


class SemiErrors(Errors):
    """Errors of one classifier, and on what."""

    data: DataFacts
    attack: AttackFacts | None


class _FewLabels(ModelTraining):
    """Common fields."""

    updates: int
    labels: int
    """Number of labels that were used."""
    label_ids: tuple[int, ...] | None
    """Positions of their images in the training split; None for all."""


class FineTuningResult(_FewLabels):
    """A classifier made of a discriminator or an encoder."""

    command = "finetune"
    newest: ClassVar[int] = 2
    schema_name: Literal["advkit/fine-tuning"] = Field("advkit/fine-tuning", alias="schema")
    version: int = 2
    test: ComparedErrors


class SemiTrainingResult(_FewLabels, TimedResult):
    """A classifier trained on few labels, together with a generator."""

    command = "semi-train"
    added = ("seconds",)
    schema_name: Literal["advkit/semi-supervised-training"] = Field(
        "advkit/semi-supervised-training", alias="schema"
    )
    last: dict[str, Any]
    """The last row of ``metrics.jsonl``."""
    test: SemiErrors
