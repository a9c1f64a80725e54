"""Linearised decision boundaries, and the smallest change that crosses one."""

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
from advkit.core.water_filling import TINY, level


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
        x: (R, C, H, W) one point a row.
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


def toward(x: Tensor, w: Tensor, rise: Tensor, norm: Norm) -> Tensor:
    """(P, R, D) the change of least ``norm`` after which ``w . x`` is larger by ``rise`` (smaller, where it
    is negative), or as close to that as the box allows.

    Args:
        x: (P, R, D) points in [0, 1].
        w: (R, D) gradient of each row's linear function.
        rise: (P, R) wanted change of its value.
        norm: linf, l2 or l1.
    """
    scale = w.abs().amax(1).clamp(min=TINY)  # so that squares of small gradients do not underflow
    w, need = w / scale[:, None], rise.abs() / scale
    way = w.sign() * rise.sign()[:, :, None]
    room = torch.where(way > 0, 1 - x, x)
    size = w.abs()
    if norm == "linf":
        return torch.minimum(room, level(size, room, need)[:, :, None]).mul_(way)
    if norm == "l2":
        until = room / size.clamp(min=TINY)
        threshold = level(size.square(), until, need)[:, :, None]
        return torch.minimum(until, threshold).mul_(size).mul_(way)
    return _greedy(size, room, need).mul_(way)


def _greedy(size: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """(P, R, D) lengths of the moves: the entries of the largest ``size`` first, until sum_i size_i * move_i
    is ``need``."""
    ranked, order = size.sort(dim=1, descending=True)
    order = order.expand_as(room)
    room = room.gather(2, order)
    gain = room * ranked
    before = gain.cumsum(2).sub_(gain)
    move = (need[:, :, None] - before).div_(ranked.clamp(min=TINY)).clamp_(min=0)
    return torch.zeros_like(room).scatter_(2, order, torch.minimum(move, room))
