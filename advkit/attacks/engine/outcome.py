"""The outcome of a sample, as if its variants had run one after the other."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The outcome of one attack on one sample."""

    broken: bool
    iteration: int
    """Step at which the adversarial example was found; 0 where none was."""
    variant: int
    """Which start or target succeeded; the last one where none did."""
    distance: float
    """From the original, in the threat's norm; that of the last point where the attack failed."""
    margin: float | None
    """Largest margin at any allowed point that was evaluated; None: no point."""
    refuted: int
    """Successes of the search that the model itself did not confirm."""
    forwards: int
    backwards: int
    undefined: bool = False
    """The logits of an allowed point, or a gradient, were not numbers, which counts as no success."""

    @property
    def passes(self) -> int:
        """Forward and backward."""
        return self.forwards + self.backwards


@dataclass(frozen=True, kw_only=True, slots=True)
class Found(Outcome):
    """An outcome with its image, as a search reports it."""

    index: int
    """Row of the data."""
    x: Tensor
    """(C, H, W): the adversarial image, or the last point; always inside the threat model."""

    @property
    def outcome(self) -> Outcome:
        """Without its image."""
        return Outcome(**{field.name: getattr(self, field.name) for field in fields(Outcome)})


class VariantResults:
    """The outcomes of a sample's variants, which may run at the same time.

    The result is that of running each variant only where all earlier ones failed: the first successful
    variant counts, even where a later one was quicker, and so do the passes of the variants up to it. So a
    verdict does not depend on the batch size.

    Args:
        variants: number of rows of the sample.
        nearest: all variants run, and the nearest success counts.
    """

    def __init__(self, variants: int, *, nearest: bool) -> None:
        self.last = variants - 1
        """Later variants cannot change the result."""
        self._nearest = nearest
        self._outcomes: dict[int, Outcome] = {}
        self._best: Found | None = None

    def add(self, found: Found) -> Found | None:
        """Adds the outcome of one variant; returns that of the sample once it is final."""
        self._outcomes[found.variant] = found.outcome
        if found.broken and not self._nearest:
            self.last = min(self.last, found.variant)
        if self._is_best(found):
            self._best = found
        counted = [self._outcomes[variant] for variant in range(self.last + 1) if variant in self._outcomes]
        if self._best is None or len(counted) <= self.last:
            return None
        return replace(
            self._best,
            margin=max((one.margin for one in counted if one.margin is not None), default=None),
            refuted=sum(one.refuted for one in counted),
            undefined=any(one.undefined for one in counted),
            forwards=sum(one.forwards for one in counted),
            backwards=sum(one.backwards for one in counted),
        )

    @property
    def done(self) -> int:
        """Number of finished variants."""
        return len(self._outcomes)

    def _is_best(self, found: Found) -> bool:
        """Whether it is the one to report so far; no other image is kept."""
        if not self._nearest:
            return found.variant == self.last
        best = self._best
        return best is None or (found.broken, -found.distance, -found.variant) > (
            best.broken,
            -best.distance,
            -best.variant,
        )
