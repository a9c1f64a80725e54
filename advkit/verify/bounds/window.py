"""Rows that start at single neurons of a convolution have a small receptive field in each earlier plane.

There, a batch of rows holds windows (R, C, h, w), each at its own position, instead of whole planes: for the
neurons of early layers this takes a hundredth of the arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from advkit.verify.bounds.affine import Convolution, Normalise, Scale
from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.relaxation import Relu

MATRIX = 512
"""Values of a window up to which a convolution is applied to it as a matrix."""


@dataclass(frozen=True)
class Step:
    """A node that windows are propagated through, and their size afterwards, toward the images."""

    place: int
    size: tuple[int, int, int]
    """(C, h, w)"""


def windowed_path(graph: Graph, start: int) -> list[Step]:
    """The nodes that windows of single neurons of ``start`` can be propagated through, if it is a plane."""
    steps: list[Step] = []
    if len(graph.nodes[start].shape) != 3:
        return steps
    size, k = (graph.nodes[start].shape[0], 1, 1), start
    while k > 0:
        node = graph.nodes[k]
        before = graph.nodes[node.inputs[0]].shape
        if isinstance(node.op, Convolution):
            kernel = node.op.weight.shape[2:]
            spans = [
                (size[1 + i] - 1) * node.op.stride[i] + node.op.dilation[i] * (kernel[i] - 1) + 1
                for i in (0, 1)
            ]
            size = (before[0], spans[0], spans[1])
        elif not (_by_channel(node.op) or isinstance(node.op, Relu)):
            break
        if size[1] * size[2] >= before[1] * before[2]:
            break
        steps.append(Step(k, size))
        k = node.inputs[0]
    return steps


def reach_images(graph: Graph, steps: list[Step]) -> bool:
    """Whether rows stay windows along ``steps`` all the way to the images."""
    return bool(steps) and graph.nodes[steps[-1].place].inputs[0] == 0


def _by_channel(op: object) -> bool:
    if isinstance(op, Normalise):
        return True
    return isinstance(op, Scale) and op.factor.shape[-2:] == (1, 1)


class Window:
    """Windows of a plane, one for each row.

    Args:
        a: (R, C, h, w) coefficients; those outside the plane are 0.
        top: (R,) row in the plane of each window's first row; it may lie outside.
        left: (R,) column in the plane of each window's first column, likewise.
        plane: (C, H, W)
    """

    def __init__(self, a: Tensor, top: Tensor, left: Tensor, plane: tuple[int, ...]) -> None:
        self.a, self.top, self.left, self.plane = a, top, left, plane

    @classmethod
    def at(cls, neuron: Tensor, sign: Tensor, plane: tuple[int, ...], dtype: torch.dtype) -> Window:
        """Windows of single neurons, given by their flat indices in the plane."""
        channels, height, width = plane
        a = functional.one_hot(neuron // (height * width), channels).to(dtype) * sign.to(dtype)[:, None]
        rest = neuron % (height * width)
        return cls(a.view(-1, channels, 1, 1), rest // width, rest % width, plane)

    def convolved_back(self, op: Convolution) -> Window:
        """Through a convolution, toward the images."""
        inputs = self.a.shape[1:]
        if math.prod(inputs) <= MATRIX:  # one matrix for all windows is faster
            unit = torch.eye(math.prod(inputs), dtype=self.a.dtype, device=self.a.device).view(-1, *inputs)
            rows = _transposed(op, unit)
            a = (self.a.flatten(1) @ rows.flatten(1)).view(-1, *rows.shape[1:])
        else:
            a = _transposed(op, self.a)
        top, left = self.top * op.stride[0] - op.padding[0], self.left * op.stride[1] - op.padding[1]
        wide = Window(a, top, left, op.source)
        rows, columns = wide._places()
        inside = _within(rows, op.source[1])[:, None, :, None] & _within(columns, op.source[2])[:, None, None]
        wide.a = a * inside
        return wide

    def gathered(self, values: Tensor, index: Tensor) -> Tensor:
        """(R, C, h, w) ``values`` (N, H, W, C) under each window; outside the plane they are arbitrary.

        Args:
            values: channels last, for contiguous access.
            index: (R,) image of each row.
        """
        _, height, width = self.plane
        rows, columns = self._places()
        place = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
        place = place + (index * height * width)[:, None, None]
        return values.flatten(0, 2)[place.flatten()].view(*place.shape, -1).permute(0, 3, 1, 2)

    def whole(self) -> Tensor:
        """(R, C, H, W) coefficients of the whole planes."""
        channels, height, width = self.plane
        rows, columns = self._places()
        place = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
        place = place[:, None].expand_as(self.a).flatten(2)
        planes = self.a.new_zeros(len(self.a), channels, height * width)
        return planes.scatter_add(2, place, self.a.flatten(2)).view(-1, *self.plane)

    def _places(self) -> tuple[Tensor, Tensor]:
        """(R, h) and (R, w)"""
        rows, columns = (torch.arange(n, device=self.a.device) for n in self.a.shape[2:])
        return self.top[:, None] + rows, self.left[:, None] + columns


def _transposed(op: Convolution, a: Tensor) -> Tensor:
    return functional.conv_transpose2d(a, op.weight, None, op.stride, 0, 0, op.groups, op.dilation)


def _within(place: Tensor, length: int) -> Tensor:
    return (place >= 0) & (place < length)


def widest(steps: list[Step]) -> int:
    """Largest number of values of a row on its path, which has a step."""
    return max(math.prod(step.size) for step in steps)
