"""Configuration of ``advkit certify``; imports no torch, so that help is fast."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from advkit.core.config import Fraction
from advkit.core.shards import Sharded
from advkit.models.foreign_settings import SubjectFields, SubjectSettings

Method = Literal["auto", "interval", "linear", "optimised", "complete"]
"""The bounds; auto: the next three in turn, on the images that are not certified yet; complete: auto, then
branch and bound."""
TIMEOUT = 30.0
"""Default seconds of branch and bound for an image."""


class _Certifying(SubjectFields):
    """Options that help lists before those of foreign models."""

    norm: Literal["linf", "l2", "l1", "l0"] | None = None
    """How the size of a change is measured (l0 has no bounds)."""
    eps: Fraction | None = Field(None, gt=0)
    """Largest change that the certificate covers, for pixels in [0, 1]; a fraction such as 8/255 is fine."""
    method: Method = "auto"
    """Bounds, from the cheapest to the tightest: interval, linear, optimised; auto uses each in turn, for the
    images that are not certified yet; complete then proves or breaks the rest by branch and bound."""
    timeout: float = Field(TIMEOUT, gt=0)
    """Seconds of branch and bound for each image, of its own time, with --method complete; the attack on what
    it leaves open takes about as many at most."""
    subproblems: int | None = Field(None, ge=1)
    """Number of subproblems after which branch and bound gives an image up, with --method complete, and of
    ascents of the attack that follows; without a time-out, the result does not depend on the machine's
    speed."""
    property: str | None = None
    """A file of VNN-LIB (.vnnlib), with inputs and outputs that should not occur together: branch and bound
    proves or breaks it instead of images; unless it holds, the exit code is 1."""
    batch_size: int = Field(64, ge=1)
    """Images in a batch; it changes the result by rounding at most."""
    min_certified: Fraction | None = Field(None, ge=0, le=1)
    """Required certified accuracy, as a fraction; below it, the exit code is 1."""


class Certification(Sharded, SubjectSettings, _Certifying):
    """Certify images: prove that no change within eps makes the classifier misclassify them.

    Bounds of the network's outputs hold against every attack, known or unknown. So the certified accuracy is
    a lower bound of the robust accuracy, as an attack gives an upper bound; `advkit attack --certify` reports
    both, and --method complete closes the gap on small networks. Networks of linear and convolutional layers,
    batch norm, ReLU, sigmoid, tanh, pooling and sums can be certified.
    """

    irrelevant: ClassVar = ("min_certified", "batch_size")
