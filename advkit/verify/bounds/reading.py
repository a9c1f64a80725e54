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

    @property
    def size(self) -> tuple[int, ...]:
        """Of an image's values in the graph, where one number (2,) is a vector (2, 1)."""
        return tuple(self.example.shape[1:]) or (1,)


class Reading:
    """The nodes so far.

    Args:
        images: (2, C, H, W) an example.
    """

    def __init__(self, images: Tensor) -> None:
        self.nodes = [Node("images", None, (), tuple(images.shape[1:]))]
        self.images = Value(images, 0)

    def add(self, name: str, op: Affine | Nonlinear, *inputs: Value, number: bool | None = None) -> Value:
        """Adds an operation on other values, and returns its value; ``number``: it is (2,), no vector (2, 1);
        None: as the inputs are."""
        example = op.apply(*(value.example.view(2, *value.size) for value in inputs))
        places = tuple(value.place for value in inputs)
        self.nodes.append(Node(name, op, places, tuple(example.shape[1:])))
        if number is None:
            number = all(value.example.dim() == 1 for value in inputs)
        return Value(example[:, 0] if number else example, len(self.nodes) - 1)
