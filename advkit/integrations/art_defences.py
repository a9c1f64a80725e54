"""ART's preprocessing defences as a PyTorch layer, with its own gradient or a straight-through one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _OnArrays(torch.autograd.Function):
    """A defence that computes with NumPy; backward, ART's estimate of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, defence: Any) -> Tensor:
        ctx.defence, ctx.x = defence, x.detach().cpu().float().numpy()
        return torch.as_tensor(defence(ctx.x)[0]).to(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        estimated = ctx.defence.estimate_gradient(ctx.x, grad.cpu().float().numpy())
        return torch.as_tensor(estimated).to(grad), None


class Defence(nn.Module):
    """One of ART's preprocessors.

    Args:
        preprocessor: an ``art.defences.preprocessor.Preprocessor``; a PyTorch one keeps its gradient.
    """

    def __init__(self, preprocessor: Any) -> None:
        super().__init__()
        from art.defences.preprocessor.preprocessor import Preprocessor, PreprocessorPyTorch

        self.preprocessor = preprocessor
        self._on_tensors = isinstance(preprocessor, PreprocessorPyTorch)
        kind = type(preprocessor)
        self._estimated = (
            self._on_tensors and kind.estimate_forward is not PreprocessorPyTorch.estimate_forward
        )
        arrays = not self._on_tensors and kind.estimate_gradient is Preprocessor.estimate_gradient
        self.straight_through = arrays
        """Its gradient is approximated by the identity."""

    @property
    def name(self) -> str:
        """Its class name in ART."""
        return type(self.preprocessor).__name__

    def forward(self, x: Tensor) -> Tensor:
        """The images ``x`` after the defence."""
        if not self._on_tensors:
            return _OnArrays.apply(x, self.preprocessor)  # type: ignore[no-any-return]
        if not (self._estimated and torch.is_grad_enabled()):
            output: Tensor = self.preprocessor.forward(x)[0]
            return output
        estimate: Tensor = self.preprocessor.estimate_forward(x)
        with torch.no_grad():
            output = self.preprocessor.forward(x)[0]
        return estimate + (output - estimate).detach()

    def facts(self) -> dict[str, Any]:
        """Its settings, as plain values."""
        return {
            name: _plain(value) for name, value in vars(self.preprocessor).items() if not name.startswith("_")
        }


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value if isinstance(value, bool | int | float | str | None) else type(value).__name__
