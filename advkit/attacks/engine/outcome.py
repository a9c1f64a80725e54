"""What came of a sample, told as if its variants had run one after the other."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one sample came out of one attack."""

    broken: bool
    iteration: int
    """Step at which it fell; 0 when it stands."""
    variant: int
    """Which start or target broke it; the last one when it stands."""
    distance: float
    """From the original, in the threat's norm; of the last point tried when it stands."""
    margin: float | None
    """Largest margin at any allowed point that was tried: how near it came to falling; None: no point."""
    refuted: int
    """Successes of the search that the model itself did not repeat."""
    forwards: int
    backwards: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Found(Outcome):
    """An outcome with its image, as a search reports it."""

    index: int
    """Row of the data."""
    x: Tensor
    """(C, H, W): the adversarial image, or the last point tried; always inside the threat model."""

    @property
    def outcome(self) -> Outcome:
        """Without its image."""
        return Outcome(**{field.name: getattr(self, field.name) for field in fields(Outcome)})


class Tally:
    """A sample whose variants may be at work side by side.

    What is told of it is what would be told had each variant run only where all earlier ones failed: the
    first variant that breaks it counts, even where a later one was quicker, and the passes are those of the
    variants up to that one. So a verdict does not depend on how many rows shared a batch.

    Args:
        variants: rows of the sample.
        nearest: all variants run, and the nearest success counts.
    """

    def __init__(self, variants: int, *, nearest: bool) -> None:
        self.last = variants - 1
        """Later variants cannot change what is told."""
        self._nearest = nearest
        self._ended: dict[int, Outcome] = {}
        self._told: Found | None = None

    def add(self, found: Found) -> Found | None:
        """Takes what came of one variant; returns what came of the sample, once that is certain."""
        self._ended[found.variant] = found.outcome
        if found.broken and not self._nearest:
            self.last = min(self.last, found.variant)
        if self._tells(found):
            self._told = found
        counted = [self._ended[variant] for variant in range(self.last + 1) if variant in self._ended]
        if self._told is None or len(counted) <= self.last:
            return None
        return replace(
            self._told,
            margin=max((one.margin for one in counted if one.margin is not None), default=None),
            refuted=sum(one.refuted for one in counted),
            forwards=sum(one.forwards for one in counted),
            backwards=sum(one.backwards for one in counted),
        )

    @property
    def done(self) -> int:
        """Variants that have ended."""
        return len(self._ended)

    def _tells(self, found: Found) -> bool:
        """Whether it is the one to tell of so far; no other image is kept."""
        if not self._nearest:
            return found.variant == self.last
        told = self._told
        return told is None or (found.broken, -found.distance, -found.variant) > (
            told.broken,
            -told.distance,
            -told.variant,
        )
