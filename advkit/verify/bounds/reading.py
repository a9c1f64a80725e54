"""A graph under construction."""

from __future__ import annotations

from torch import Tensor

from advkit.verify.bounds.affine import Affine
from advkit.verify.bounds.graph import Node, Nonlinear


class Unreadable(Exception):
    """A layer that cannot be bounded; the message says why."""


class Value:
    """A tensor that depends on the images.

    Args:
        example: its values for two images (2, ...).
        place: index of its node.
    """

    def __init__(self, example: Tensor, place: int) -> None:
        self.example, self.place = example, place


class Reading:
    """The nodes so far.

    Args:
        images: (2, C, H, W) an example.
    """

    def __init__(self, images: Tensor) -> None:
        self.nodes = [Node("images", None, (), tuple(images.shape[1:]))]
        self.images = Value(images, 0)

    def add(self, name: str, op: Affine | Nonlinear, *inputs: Value) -> Value:
        """Adds an operation on other values, and returns its value."""
        example = op.apply(*(value.example for value in inputs))
        places = tuple(value.place for value in inputs)
        self.nodes.append(Node(name, op, places, tuple(example.shape[1:])))
        return Value(example, len(self.nodes) - 1)
