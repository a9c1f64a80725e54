"""Black boxes: `BlackBox`, and objects of other libraries that answer queries."""

from __future__ import annotations

import math
from typing import Any

from advkit.core.errors import DataError
from advkit.models.black_box import BlackBox
from advkit.models.card import Preprocessing
from advkit.models.door import Door, Found, Said, door


@door(
    "black-box",
    "advkit.models.black_box:BlackBox",
    "sklearn.base:ClassifierMixin",
    "xgboost.sklearn:XGBClassifier",
    "art.estimators.classification.blackbox:BlackBoxClassifier",
    "art.estimators.classification.blackbox:BlackBoxClassifierNeuralNetwork",
    summary="package.module:function of arrays, with --access scores or decisions",
)
class BlackBoxDoor(Door):
    """Takes what answers queries, and says how."""

    def open(self, where: Any, said: Said) -> Found:
        """The black box, with what the caller says of it."""
        box = where
        if not isinstance(where, BlackBox):
            box = BlackBox(
                where,
                access=said.access or "scores",
                max_queries=said.max_queries,
                max_total_queries=said.max_total_queries,
                pixel_range=said.preprocessing.pixel_range,
                outputs="probabilities" if said.preprocessing.outputs == "probabilities" else None,
            )
        box.known = box.classes or said.classes or box.known
        shape = box.shape or said.shape
        if shape is not None and box.features not in (None, math.prod(shape)):
            raise DataError(
                f"the estimator takes rows of {box.features} values, but an image of shape {shape} has "
                f"{math.prod(shape)}; choose data of its size"
            )
        facts = {
            "access": box.access,
            "max_queries": box.max_queries,
            "max_total_queries": box.max_total_queries,
        }
        scores = box.outputs if box.access == "scores" and box.outputs else "logits"
        own = Preprocessing(pixel_range=box.pixel_range, outputs=scores)
        return Found(box, box.named, facts, shape, box.classes or said.classes, (), own, (box.note,))
