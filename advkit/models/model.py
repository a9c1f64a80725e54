"""A network together with its card: what `advkit.load_model` returns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from advkit.models.card import ModelCard
from advkit.models.notes import Note


class Model(nn.Module):
    """Takes pixels in [0, 1] and applies the card's preprocessing, so that budgets mean one thing everywhere.

    Args:
        network: the network itself; its state dict is what a checkpoint holds.
        card: what is known about it.
        notes: what a person should know of how it was loaded; by default what the card says.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, network: nn.Module, card: ModelCard, notes: Sequence[Note] = ()) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.notes = tuple(notes) or ((Note("card", card.notes),) if card.notes else ())
        self.probabilities = card.preprocessing.outputs == "probabilities"
        scale, shift = _affine(card)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        """What the network says of ``x``: logits of images (N, C, H, W) in [0, 1] for a classifier,
        images for a generator's latent vectors; a conditional network is given classes (N,) besides."""
        if self.scale is not None and self.shift is not None:
            x = x * self.scale + self.shift
        out: Tensor = self.network(x, *labels)
        return out.clamp_min(1e-30).log() if self.probabilities else out

    @property
    def hash(self) -> str:
        """Content hash of architecture, parameters, preprocessing and weights (64 hexadecimal digits)."""
        return content_hash(self.card, self.network.state_dict())


def _affine(card: ModelCard) -> tuple[Tensor | None, Tensor | None]:
    """(x * (high - low) + low - mean) / std as one multiplication and one addition, or none."""
    p = card.preprocessing
    low, high = p.pixel_range
    if not p.mean and not p.std and (low, high) == (0.0, 1.0):
        return None, None
    channels = card.shape[0]
    mean = torch.tensor(p.mean or (0.0,) * channels).view(1, -1, 1, 1)
    std = torch.tensor(p.std or (1.0,) * channels).view(1, -1, 1, 1)
    return (high - low) / std, (low - mean) / std


def content_hash(card: ModelCard, state: Mapping[str, Tensor]) -> str:
    """SHA-256 over what determines the function that the model computes."""
    identity = card.model_dump_json(include={"architecture", "config", "shape", "classes", "preprocessing"})
    return _digest(identity, state)


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values alone, by which a file can tell that it was damaged."""
    return _digest("", state)


def _digest(prefix: str, state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(prefix.encode())
    for name in sorted(state):
        # A clone: a tensor of one number is contiguous whatever its stride is, which no other type can view.
        tensor = state[name].detach().cpu().clone(memory_format=torch.contiguous_format)
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside; every submodule's own mode is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
