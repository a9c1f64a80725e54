"""Threat models: which changes of an image an attacker may make.

Images are float tensors in [0, 1] of shape (N, C, H, W), so ``eps`` means the same for every model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat, get_args

from pydantic import Field, model_validator

from advkit.core.config import Fraction, StrictModel
from advkit.core.errors import ConfigError

if TYPE_CHECKING:  # listings read threat models without PyTorch
    from torch import Tensor

Norm = Literal["linf", "l2", "l1", "l0"]


def norm_called(name: Any) -> str:
    """The norm that is meant by ``L2``, 2 or ``np.inf``; another word is left for validation to refuse."""
    said = str(name).lower().removesuffix(".0")
    return said if said in get_args(Norm) else f"l{said}" if f"l{said}" in get_args(Norm) else str(name)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def _length(rows: Tensor) -> Tensor:
    """(N,) Euclidean norms."""
    from torch.linalg import vector_norm

    length: Tensor = vector_norm(rows.flatten(1), dim=1)
    return length


class Threat(StrictModel):
    """Every image within distance ``eps`` of the original in ``norm``, and inside [0, 1].

    Written ``Threat("linf", 0.3)`` or ``Threat("linf", "8/255")``.

    The norm may also be written as numpy's ``ord`` (2, ``np.inf``) or in capitals.

    Raises:
        ConfigError: an unknown norm, an eps that is not positive, a linf eps above 1 (8 where 8/255 is
            meant), or a l0 eps that is no whole number.
    """

    norm: Norm
    """linf: largest change of a value; l2: Euclidean; l1: sum of changes; l0: number of values changed."""
    eps: Fraction = Field(gt=0)
    """The budget, in units of pixels in [0, 1] (l0: a count)."""

    def __init__(self, norm: str | float, eps: SupportsFloat | str) -> None:
        from pydantic import ValidationError

        try:
            given = eps if isinstance(eps, str) else float(eps)
            super().__init__(norm=norm_called(norm), eps=given)  # type: ignore[call-arg]
        except (TypeError, ValueError) as error:
            said = [str(error)]
            if isinstance(error, ValidationError):
                said = [fault["msg"].removeprefix("Value error, ") for fault in error.errors()]
            raise ConfigError(f"threat {norm!r}, eps {eps!r}: {'; '.join(said)}") from error

    @model_validator(mode="after")
    def _fits(self) -> Threat:
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(
                f"eps {self.eps:g} is larger than the whole pixel range [0, 1]; "
                f"write {self.eps:g}/255 if 8-bit levels are meant"
            )
        if self.norm == "l0" and self.eps != int(self.eps):
            raise ValueError("l0 counts the values that may change; give a whole number")
        return self

    @classmethod
    def of(cls, given: Any) -> Threat:
        """A threat model, or the pair (norm, eps) of one.

        Raises:
            ConfigError: it is neither, or an impossible one.
        """
        if isinstance(given, Threat):
            return given
        if isinstance(given, tuple | list) and len(given) == 2:
            return cls(*given)
        raise ConfigError(f'{given!r} is no threat model; give one such as advkit.Threat("linf", 0.1)')

    def refuse_other_norms(self, norms: Sequence[Norm], what: str) -> None:
        """Raises a `ConfigError` unless the norm is one of those that ``what`` (a plural) support."""
        if self.norm not in norms:
            raise ConfigError(f"{what} support {' and '.join(norms)}, not {self.norm}; give --norm and --eps")

    def refuse_misfit(self, shape: Sequence[int]) -> None:
        """Raises a ConfigError if ``eps`` exceeds the largest distance of two images of this shape."""
        most = Threat.whole(self.norm, math.prod(shape)).eps
        if self.eps > most:
            raise ConfigError(
                f"{self} allows every image: two images of shape {tuple(shape)} in [0, 1] are {most:g} "
                "apart at most; give a smaller eps"
                + (f" ({self.eps:g}/255 if 8-bit levels are meant)" if self.norm != "l0" else "")
            )

    def scaled(self, factor: float) -> Threat:
        """The same norm with ``factor`` times the budget; in l0 rounded up to a whole number."""
        eps = factor * self.eps
        return Threat(self.norm, math.ceil(eps) if self.norm == "l0" else eps)

    def __str__(self) -> str:
        return f"{self.norm} eps {self.eps:.4g}"

    @classmethod
    def whole(cls, norm: Norm, values: int) -> Threat:
        """No budget but the box: every image of so many values in [0, 1], for searches of the nearest."""
        return cls(norm, {"linf": 1.0, "l2": values**0.5, "l1": values, "l0": values}[norm])

    @property
    def slack(self) -> float:
        """How far beyond ``eps`` a distance may come out in float32 arithmetic and still be inside."""
        return 0.0 if self.norm == "l0" else 1e-6 * max(1.0, self.eps)

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        """(N,) distances between images and their originals."""
        change = (x - x0).flatten(1)
        if self.norm == "linf":
            return change.abs().amax(1)
        if self.norm == "l2":
            return _length(change)
        if self.norm == "l1":
            return change.abs().sum(1)
        return (change != 0).sum(1).to(x.dtype)

    def boxed(self, x: Tensor) -> Tensor:
        """(N,) bool: inside [0, 1]; NaN is outside."""
        flat = x.flatten(1)
        return (flat >= 0).all(1) & (flat <= 1).all(1)

    def contains(self, x: Tensor, x0: Tensor) -> Tensor:
        """(N,) bool: inside the budget and inside [0, 1]; NaN is outside."""
        return self.boxed(x) & (self.distance(x, x0) <= self.eps + self.slack)

    def project(self, x: Tensor, x0: Tensor) -> Tensor:
        """An allowed image near ``x``: the nearest one for linf, l1 and l0; for l2 the nearest in the
        ball, then clamped, as attacks usually do (it stays in the ball, since ``x0`` is in [0, 1]).
        `nearest` is exact in every norm."""
        return self.project_(x.clone(), x0)

    def project_(self, x: Tensor, x0: Tensor) -> Tensor:
        """`project`, in the memory of ``x``: fresh memory costs an inner loop more than the arithmetic."""
        if self.norm == "l1":
            from advkit.core import l1_ball

            return l1_ball.project_(x, x0, x.new_full((len(x),), self.eps))
        change = x.sub_(x0)
        if self.norm == "linf":
            return change.clamp_(-self.eps, self.eps).add_(x0).clamp_(0, 1)
        if self.norm == "l2":
            length = _length(change)
            change.mul_(_per_row((self.eps / length.clamp(min=1e-12)).clamp(max=1), x))
            return change.add_(x0).clamp_(0, 1)
        boxed = (change + x0).clamp_(0, 1).sub_(x0)
        gain = (change.square() - (change - boxed).square()).flatten(1)
        keep = min(int(self.eps), gain.shape[1])
        kept = gain.new_zeros(gain.shape).scatter_(1, gain.topk(keep, dim=1).indices, 1.0)
        return change.copy_(boxed).mul_(kept.view_as(boxed)).add_(x0)

    def nearest(self, x: Tensor, x0: Tensor) -> Tensor:
        """The allowed image at the least Euclidean distance from ``x``. In l2 it takes a search, so that
        inner loops `project` instead.

        In l2 it is x0 + s * (x - x0), clamped to [0, 1], with the largest s at which that is in the ball: the
        square of an entry's change is min(s^2 * change^2, room^2).
        """
        if self.norm != "l2":
            return self.project(x, x0)
        from torch import where

        from advkit.core import water_filling

        change = (x - x0).flatten(1)
        room = where(change > 0, 1 - x0.flatten(1), x0.flatten(1))
        square = change.square()
        filled = room.square() / square.clamp(min=water_filling.TINY)
        budget = square.new_full((len(square),), self.eps**2 * (1 - 1e-6))
        share = water_filling.level(square, filled, budget).clamp(max=1).sqrt()
        return (change * share[:, None]).view_as(x).add_(x0).clamp_(0, 1)

    def ascent(self, gradient: Tensor) -> Tensor:
        """The step of length 1 in ``norm`` that raises a linear function fastest (a zero gradient
        gives a zero step): sign for linf, the normalised gradient for l2, the largest entry for l1 and l0."""
        if self.norm == "linf":
            return gradient.sign()
        flat = gradient.flatten(1)
        if self.norm == "l2":
            return gradient / _per_row(_length(flat).clamp(min=1e-12), gradient)
        top = flat.abs().argmax(1, keepdim=True)
        return flat.new_zeros(flat.shape).scatter_(1, top, flat.gather(1, top).sign()).view_as(gradient)

    def ascent_(self, gradient: Tensor) -> Tensor:
        """`ascent`, in the memory of ``gradient`` where it can be."""
        if self.norm == "linf":
            return gradient.sign_()
        if self.norm == "l2":
            return gradient.div_(_per_row(_length(gradient).clamp(min=1e-12), gradient))
        return self.ascent(gradient)

    def sample(self, x0: Tensor, key: Tensor) -> Tensor:
        """An image drawn from the ball around each original, then clamped to [0, 1].

        linf: uniform in the cube; l2: uniform in the ball; l1: uniform in the cross-polytope;
        l0: ``eps`` values replaced by uniform ones.

        Args:
            x0: (N, C, H, W) originals.
            key: (N,) keys from `advkit.core.rng.keys`.
        """
        from torch import log1p, where

        from advkit.core import rng

        shape, size = x0.shape[1:], x0[0].numel()
        if self.norm == "linf":
            return rng.uniform(key, shape).mul_(2 * self.eps).sub_(self.eps).add_(x0).clamp_(0, 1)
        if self.norm == "l2":
            direction = rng.normal(key, (size + 2,))  # without the last two, uniform in the ball
            unit = direction[:, :size] / _length(direction)[:, None]
            return (x0 + self.eps * unit.view_as(x0)).clamp_(0, 1)
        if self.norm == "l1":
            exponential = log1p(-rng.uniform(key, (size + 1,)))  # but for the sign, which shares lose
            sign = rng.integers(key + 1, (size,), 2) * 2 - 1
            share = exponential[:, :size] / exponential.sum(1, keepdim=True)
            return (x0 + self.eps * (share * sign).view_as(x0)).clamp_(0, 1)
        rank = rng.uniform(key, (size,)).argsort(1).argsort(1)
        chosen = (rank < int(self.eps)).view_as(x0)
        return where(chosen, rng.uniform(key + 1, shape), x0)


def written(eps: float, norm: Norm | None, digits: int = 4) -> str:
    """``"0.3"``, or ``"8/255"`` for a multiple of 1/255."""
    return f"{round(eps * 255)}/255" if norm == "linf" and is_level(eps) else f"{eps:.{digits}g}"


def is_level(eps: float) -> bool:
    """Whether it is a multiple of 1/255, and no short decimal."""
    levels, thousands = eps * 255, eps * 1000
    return abs(levels - round(levels)) < 1e-6 < abs(thousands - round(thousands))


def options(norm: Norm | None, eps: float) -> str:
    """A budget as options of a command, for one that has the same.

    Example:
        >>> from advkit.core.threat import options
        >>> options("linf", 8 / 255), options("l2", 0.5)
        ('--norm linf --eps 8/255', '--norm l2 --eps 0.5')
    """
    return f"--norm {norm} --eps {written(eps, norm, 12)}"
