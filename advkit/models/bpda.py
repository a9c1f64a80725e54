"""Layers whose gradient is taken for the identity (BPDA), and those that let no gradient through."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from advkit.core.errors import ConfigError, ModelError, by_size, did_you_mean, listed
from advkit.models.model import Model, evaluation_mode


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
        layers: names of submodules of its network, as ``named_modules`` gives them.
        images: (N, C, H, W) a few on the model's device, to try it on.

    Raises:
        ConfigError: there is no such layer, or it changes the shape, or no image passes through it.
        ModelError: the model cannot be copied.
    """
    known = [name for name, _ in model.network.named_modules() if name]
    for name in layers:
        if name not in known:
            raise ConfigError(
                f"--bpda: the model has no layer {name!r}{did_you_mean(name, known)}; its layers: "
                f"{listed(known, 12) or 'none'}"
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


def obstacles(model: Model, images: Tensor) -> list[str]:
    """Names of the layers that keep the shape and pass back nothing, on most images, of any gradient.

    One pass forward, and one each way of every such layer alone. A step outside of all layers is not seen.

    Args:
        model: a classifier, in eval mode.
        images: (N, C, H, W) on the model's device.
    """
    inputs: dict[str, tuple[nn.Module, Tensor]] = {}

    def noting(name: str) -> Any:
        def note(layer: nn.Module, given: tuple[Any, ...], made: Any) -> None:
            if len(given) == 1 and _alike(given[0], made):
                inputs[name] = layer, given[0].detach().clone()

        return note

    hooks = [
        layer.register_forward_hook(noting(name)) for name, layer in model.network.named_modules() if name
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    found = [name for name, (layer, x) in inputs.items() if _cuts(layer, x)]
    return [name for name in found if not any(other.startswith(f"{name}.") for other in found)]


def _alike(x: Any, y: Any) -> bool:
    return (
        isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and bool(x.is_floating_point())
    )


def _cuts(layer: nn.Module, x: Tensor) -> bool:
    x.requires_grad_(True)
    with torch.enable_grad():
        y = layer(x)
        if not y.requires_grad:
            return True
        weights = torch.linspace(-1.0, 2.0, y[0].numel(), device=y.device, dtype=y.dtype).view(y.shape[1:])
        (grad,) = torch.autograd.grad((y * weights).sum(), x, allow_unused=True, materialize_grads=True)
    silent = (grad.flatten(1) == 0).all(1)
    return bool(silent.float().mean() > 0.5)
