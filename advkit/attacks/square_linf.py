"""Square windows in linf: every value is moved by plus or minus eps, window by window."""

from __future__ import annotations

from torch import Tensor

from advkit import rng
from advkit.attacks.windows import Windows
from advkit.threat import Threat


class Paint:
    """Stripes first, then windows of one sign per channel.

    Args:
        p: share of the pixels that the first windows cover.
        threat: linf.
        shape: (C, H, W) of the images.
    """

    def __init__(self, p: float, threat: Threat, shape: tuple[int, ...]) -> None:
        self.windows, self.eps, self.channels = Windows(p, shape), threat.eps, shape[0]

    def first(self, x0: Tensor, key: Tensor) -> Tensor:
        """Vertical stripes, one pixel wide, of plus or minus eps in each channel."""
        sign = rng.integers(key, (self.channels, 1, x0.shape[3]), 2) * 2 - 1
        return (x0 + self.eps * sign).clamp_(0, 1)

    def next(self, best: Tensor, x0: Tensor, key: Tensor, iteration: Tensor) -> Tensor:
        """(R, C, H, W) the best point so far, with one window repainted.

        Args:
            best: (R, C, H, W) in the ball.
            x0: (R, C, H, W) originals.
            key: (R,) random keys of this query.
            iteration: (R,) queries so far.
        """
        draws = rng.uniform(key, (2 + self.channels,))
        side = self.windows.side(self.windows.level(iteration))
        corners = self.windows.corners(side, draws[:, None, :2])
        rows, columns = self.windows.inside(corners, side)
        # Twice eps, so that the clamp makes it eps from wherever the value was.
        strokes = rows[..., None] * (4 * self.eps * (draws[:, 2:, None, None] >= 0.5) - 2 * self.eps)
        x = (best - x0).addcmul_(strokes, columns[:, :, None])
        return x.clamp_(-self.eps, self.eps).add_(x0).clamp_(0, 1)
