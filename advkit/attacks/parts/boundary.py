"""Linearised decision boundaries from the model's derivatives at a point."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advkit.attacks.attack import Rows
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.loss import picked
from advkit.attacks.losses.logit_difference import logit_difference
from advkit.attacks.losses.margin import margin
from advkit.core.threat import Norm


def toward_target(oracle: Oracle, x: Tensor, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """The boundary toward each row's search target, if any, else toward the strongest wrong class.

    Returns:
        (signed distance beyond it (R,), in logits, its gradient (R, C, H, W), logits (R, K)); one backward
        pass.
    """
    return oracle.loss_and_grad(x, rows, logit_difference if rows.target_class is None else margin)


def nearest(
    oracle: Oracle, x: Tensor, rows: Rows, norm: Norm, classes: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the linearised boundaries between the label and each wrong class, the nearest in ``norm``.

    Targeted rows use the boundary of their target class only.

    Args:
        oracle: access to the model.
        x: (R, C, H, W) one point a row.
        rows: constant inputs of each.
        norm: of the distances.
        classes: number of wrong classes, those of the largest logits; one backward pass each. None: all.

    Returns:
        As `toward_target`.
    """
    if rows.target_class is not None:
        return toward_target(oracle, x, rows)

    def differences(logits: Tensor) -> Tensor:
        wrong = logits.scatter(1, rows.label[:, None], -torch.inf)
        most = logits.shape[1] - 1
        strongest = wrong.topk(most if classes is None else min(classes, most), dim=1)
        return strongest.values - picked(logits, rows.label)[:, None]

    values, grads, logits = oracle.jacobian(x, differences)
    order = {"linf": 1, "l2": 2}.get(norm, math.inf)
    slopes: Tensor = torch.linalg.vector_norm(grads.flatten(2), order, dim=2)
    first = (values.abs() / slopes.clamp(min=1e-12)).argmin(1)
    row = torch.arange(len(x), device=x.device)
    return values[row, first], grads[row, first], logits
