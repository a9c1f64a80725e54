"""Layers whose gradient is taken for the identity (BPDA), so that attacks get gradients through them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from advkit.core.errors import ConfigError, ModelError, by_size, did_you_mean
from advkit.models.mode import evaluation_mode
from advkit.models.model import Model


class _Identity(torch.autograd.Function):
    """Says ``y`` and passes the gradient on to ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class StraightThrough(nn.Module):
    """A layer with its own answers and the identity's gradient.

    Athalye, Carlini and Wagner, ICML 2018, section 4.1.1 (backward pass differentiable approximation).

    Args:
        name: what the user calls the layer.
        layer: the layer.
    """

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.name, self.layer = name, layer
        self.used = False

    def forward(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
        """What the layer says of ``x``.

        Raises:
            ConfigError: its answer has another shape than ``x``, so that the identity is no gradient of it.
        """
        self.used = True
        with torch.no_grad():
            y = self.layer(x.detach().clone(), *more, **named)  # a copy: the layer may work in place
        if not isinstance(y, Tensor) or y.shape != x.shape or not y.is_floating_point():
            gives = by_size(y.shape[1:]) if isinstance(y, Tensor) else type(y).__name__
            raise ConfigError(
                f"--bpda {self.name}: the layer makes {gives} of {'x'.join(map(str, x.shape[1:]))}, and only "
                "one that keeps the shape can be passed straight through; name another"
            )
        return _Identity.apply(x, y)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        """What the network asks of its layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


def straight_through(model: Model, layers: Sequence[str], images: Tensor) -> Model:
    """A copy of ``model`` that answers alike, and whose gradient passes straight through ``layers``.

    Args:
        model: a classifier.
        layers: names of submodules of its network, as ``named_modules`` gives them.
        images: (N, C, H, W) a few on the model's device, to try it on.

    Raises:
        ConfigError: there is no such layer, or it changes the shape, or no image passes through it.
        ModelError: the model cannot be copied.
    """
    known = [name for name, _ in model.network.named_modules() if name]
    for name in layers:
        if name not in known:
            shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "") or "none"
            raise ConfigError(
                f"--bpda: the model has no layer {name!r}{did_you_mean(name, known)}; its layers: {shown}"
            )
    try:
        twin = copy.deepcopy(model)
    except Exception as error:  # a foreign network may resist in any way
        raise ModelError(
            f"the model cannot be copied ({type(error).__name__}: {error}), and --bpda changes a copy of it; "
            "build it of modules that copy.deepcopy takes, or leave --bpda out"
        ) from error
    passed = []
    for name in sorted(layers, key=lambda name: -name.count(".")):  # what is inside another first
        place, _, last = name.rpartition(".")
        parent = twin.network.get_submodule(place)
        passed.append(StraightThrough(name, parent.get_submodule(last)))
        setattr(parent, last, passed[-1])
    with evaluation_mode(twin), torch.no_grad():
        twin(images)
    for layer in passed:
        if not layer.used:
            raise ConfigError(f"--bpda {layer.name}: no image passes through this layer; name another")
    return twin
