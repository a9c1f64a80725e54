"""A network together with its card: what `advkit.load_model` returns."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, fx, nn

from advkit.core.errors import ModelError
from advkit.core.notes import Note
from advkit.models.blame import blamed
from advkit.models.card import ModelCard
from advkit.models.outputs import Reading, find
from advkit.models.program import Program


class Model(nn.Module):
    """Takes pixels in [0, 1] and applies the card's preprocessing, so that budgets mean one thing everywhere.

    Args:
        network: the network itself; its state dict is what a checkpoint holds.
        notes: what a person should know of how it was loaded; by default what the card says.
    """

    scale: Tensor | None
    shift: Tensor | None
    copies: bool
    """The network changes its input in place, so it is given one of its own."""
    reading: Reading | None
    """How the logits are read from what the network returns; None where it returns them."""
    answers: tuple[float, ...]
    """Of a foreign network that was inspected, two numbers of the outputs for each of a few images: its code
    may change, which no hash of weights notices. Empty where answers are random."""
    casts: bool
    """All parameters of the network have another type than float32, and its input must have it too."""

    def __init__(self, network: nn.Module, card: ModelCard, notes: Sequence[Note] = ()) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.notes = tuple(notes) or ((Note("card", card.notes),) if card.notes else ())
        self.probabilities = card.preprocessing.outputs == "probabilities"
        self.foreign = isinstance(network, Program) or not type(network).__module__.startswith("advkit.")
        self.copies = False
        self.reading = None
        self.answers = ()
        kinds = {parameter.dtype for parameter in network.parameters()}
        self.casts = self.foreign and len(kinds) == 1 and kinds != {torch.float32}
        scale, shift = _affine(card)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        """What the network says of ``x``: logits of images (N, C, H, W) in [0, 1] for a classifier,
        images for a generator's latent vectors; a conditional network is given classes (N,) besides."""
        return self.read(self.returned(x, *labels), x)

    def returned(self, x: Tensor, *labels: Tensor) -> Any:
        """What the network itself returns for images in [0, 1]."""
        if self.scale is not None and self.shift is not None:
            x = x * self.scale + self.shift
        elif self.copies:
            x = x.clone()
        if not self.foreign:
            return self.network(x, *labels)
        if isinstance(x, Tensor):  # else it is a symbol, in a graph that is given images of any layout
            x = x.contiguous()
            x = x.to(next(self.network.parameters()).dtype) if self.casts else x
        try:
            return self.network(x, *labels)
        except (Exception, SystemExit) as error:
            if (own := blamed(error, self.network, x)) is not None:
                raise own from error
            raise

    def read(self, returned: Any, x: Tensor) -> Tensor:
        """The logits in what the network returned for ``x``."""
        if (
            self.foreign
            and self.reading is None
            and isinstance(x, Tensor)
            and not isinstance(returned, Tensor)
        ):
            self.reading = self.find(returned, len(x), self.card.classes)
        out: Tensor = returned
        if self.reading is not None:
            out = self.reading(returned, probabilities=self.probabilities)
        if self.casts:  # a float64 pass remains one
            given = x.dtype if isinstance(x, Tensor) else torch.float32
            out = out.to(torch.promote_types(given, torch.float32))
        return out.clamp_min(1e-30).log() if self.probabilities else out

    def find(self, returned: Any, count: int, classes: int | None) -> Reading:
        """How logits are to be read from what the network returned.

        Raises:
            ModelError: that is open.
        """
        of_file = isinstance(self.network, Program | fx.GraphModule)
        name = "" if of_file else type(self.network).__name__
        return find(returned, count, classes, name, probabilities=self.probabilities)

    def extra_repr(self) -> str:
        """What was assumed or read when the model was loaded, a line each."""
        return "\n".join(f"note: {note}" for note in self.notes)

    def train(self, mode: bool = True) -> Model:
        """Sets the mode, also of a network that has one alone: a frozen TorchScript, an exported program."""
        self.training = mode
        with suppress(AttributeError, NotImplementedError):
            self.network.train(mode)
        return self

    @property
    def hash(self) -> str:
        """Content hash of architecture, parameters, preprocessing and weights (64 hexadecimal digits)."""
        refuse_meta(self.network)
        return content_hash(self.card, self.network.state_dict())

    def beginning(self, name: str = "model") -> dict[str, Any]:
        """What a run that begins with this model notes of it, under this name (`RunFolder.begin_with`)."""
        answers = {f"answers of the {name}": list(self.answers)} if self.answers else {}
        return {name: self.hash, **answers}


def refuse_meta(network: nn.Module) -> None:
    """Raises a `ModelError` if any weights of ``network`` are shapes alone."""
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        raise ModelError(
            f"{type(network).__name__} has shapes in place of weights (the device meta); load them first, as "
            "by network.to_empty(device='cpu') and network.load_state_dict(...)"
        )


def _affine(card: ModelCard) -> tuple[Tensor | None, Tensor | None]:
    """(x * (high - low) + low - mean) / std as one multiplication and one addition, or none."""
    p = card.preprocessing
    low, high = p.pixel_range
    if not p.mean and not p.std and (low, high) == (0.0, 1.0):
        return None, None
    channels = card.shape[0]
    mean = torch.tensor(p.mean or (0.0,) * channels, dtype=torch.float32).view(1, -1, 1, 1)
    std = torch.tensor(p.std or (1.0,) * channels, dtype=torch.float32).view(1, -1, 1, 1)
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
        tensor = state[name]
        kind = f"{tensor.dtype}{tuple(tensor.shape)}" if torch.is_tensor(tensor) else ""
        digest.update(f"{name}{kind}".encode() + contents(tensor))
    return digest.hexdigest()


def contents(value: Any) -> bytes:
    """The bytes of a tensor, or of what else a state dict holds: packed weights, a layer's extra state."""
    if isinstance(value, tuple | list):
        return b"".join(map(contents, value))
    if not torch.is_tensor(value):
        return f"{value!r}".encode()
    plain = value.detach().dequantize() if value.is_quantized else value.detach()
    # A clone: a tensor of one number is contiguous whatever its stride is, which no other type can view.
    plain = plain.cpu().clone(memory_format=torch.contiguous_format)
    return bytes(plain.flatten().view(torch.uint8).numpy().tobytes())


_LOCK = threading.Lock()
_BEFORE: dict[nn.Module, tuple[int, bool, float]] = {}
"""How many threads have a module in eval mode at present; the mode, and the dropout, that it had before."""


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside; every submodule's own mode is put back afterwards, by the last of the
    threads that are inside at the same time.

    Recurrent layers are given no dropout instead: cuDNN differentiates them in training mode alone.
    """
    modules = [module for module in model.modules() if hasattr(module, "training")]
    recurrent = [module for module in modules if isinstance(module, nn.RNNBase)]
    with _LOCK:
        for module in modules:
            dropout = module.dropout if isinstance(module, nn.RNNBase) else 0.0
            users, training, dropout = _BEFORE.get(module, (0, module.training, dropout))
            _BEFORE[module] = (users + 1, training, dropout)
        if any(_BEFORE[module][0] == 1 for module in modules):
            model.eval()
        for layer in recurrent:
            layer.training, layer.dropout = True, 0.0
    try:
        yield
    finally:
        with _LOCK:
            for module in modules:
                users, training, dropout = _BEFORE.pop(module)
                if users > 1:
                    _BEFORE[module] = (users - 1, training, dropout)
                    continue
                module.training = training
                if isinstance(module, nn.RNNBase):
                    module.dropout = dropout
