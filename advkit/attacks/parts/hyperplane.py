"""The smallest change inside [0, 1] that moves a linear function to a given value, in each norm.

A change moves entry i by at most its room: 1 - x_i upward, x_i downward. In linf and l2 it moves by
min(t * u_i, room_i), where u_i is 1 or |w_i| and t is the same for all entries. In l1 the entries of the
largest |w_i| move first, as far as they can.

Shapes: w (R, D), one function a row; x (P, R, D), P points a row; rise (P, R).
"""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.core.threat import Norm
from advkit.core.water_filling import TINY, level


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
