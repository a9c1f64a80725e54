"""The part of a plan that fits into a time limit.

What comes later in a plan looks for less, so it is left out first: the check on a random sample becomes
smaller, then later stages go, and only if not even the first stage on all images fits, there are fewer
images. The choice is made once, before the attacks begin, from a pilot on this machine. A budget of passes,
and no clock, ends an evaluation that the pilot took for a shorter one, so the result follows from the choice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import accumulate

from torch import nn

from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import make
from advkit.core import distributed
from advkit.core.errors import ConfigError
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.data.subjects import Subject
from advkit.evaluation.forecast import Expected, Forecast, forecast
from advkit.evaluation.missing import SAMPLE, sample_size
from advkit.evaluation.result import Limited, in_units
from advkit.evaluation.settings import Evaluation
from advkit.models.black_box import black_box

CHOSEN = "plan within the time limit"
"""What a run folder calls the choice among what the run began with."""
PILOT = 0.1
"""Share of the limit after which the pilot measures nothing more."""
ATTACKS = 0.85
"""Share of the time after the pilot for the attacks; the rest is for the checks, and for surprises."""
FEWEST = 16
"""Images that are worth an evaluation."""


def refuse_unforetold(model: nn.Module, config: Evaluation, surrogate: object = None) -> None:
    """Raises a `ConfigError` where no pilot can tell the cost, or several processes share the work."""
    hidden = black_box(model) is not None
    if hidden or config.certify or config.surrogate is not None or surrogate is not None:
        raise ConfigError(
            "--time-limit needs a pilot that attacks the model itself, which a black box, --surrogate and "
            "--certify rule out; use --n or --budget instead"
        )
    if distributed.world() > 1:
        raise ConfigError("--time-limit is for one process; start a single one, or leave the limit out")


def limited(
    subject: Subject, threat: Threat, config: Evaluation, stages: Sequence[Stage], run: RunFolder | None
) -> Limited:
    """What is chosen for the time limit of the configuration; what a run has begun with stays chosen.

    Args:
        config: of the evaluation, with a time limit.
        run: where the choice is noted.

    Raises:
        ConfigError: as `pilot`.
    """
    if run is not None and (known := run.known(CHOSEN)) is not None:
        return Limited.model_validate(known)
    chosen = pilot(subject, threat, config, stages)[1]
    if run is not None:
        run.begin_with(**{CHOSEN: chosen.model_dump(mode="json")})
    return chosen


def pilot(
    subject: Subject, threat: Threat, config: Evaluation, stages: Sequence[Stage]
) -> tuple[Forecast, Limited]:
    """What the whole plan is expected to cost, and what of it fits.

    Raises:
        ConfigError: an attack does not count its passes, or `choose` finds too little time.
    """
    assert config.time_limit is not None
    if uncounted := [one.name for one in stages if make(one.attack, threat, one.parameters).cost]:
        raise ConfigError(f"--time-limit cannot tell what {uncounted[0]} costs; leave one of them out")
    found = forecast(subject, threat, config, stages, config.time_limit * PILOT)
    spent = time.perf_counter() - subject.begun
    return found, choose(found, [one.name for one in stages], config, len(subject.images), spent)


def choose(found: Forecast, stages: Sequence[str], config: Evaluation, n: int, spent: float) -> Limited:
    """What fits into the time limit of the configuration, of which ``spent`` seconds are over.

    Args:
        found: the forecast of the whole plan on ``n`` images.
        stages: its stages, without those of the check on a sample.
        spent: seconds.

    Raises:
        ConfigError: fewer than `FEWEST` images would be attacked.
    """
    limit = config.time_limit or math.inf
    first, sampled = found.stages[: len(stages)], found.stages[len(stages) :]
    asked = sample_size(config.check_sample, config.attack, n) if sampled else 0
    needed = spent + (found.seconds + n * found.clean) / ATTACKS
    total = (limit - spent) * ATTACKS
    images, kept, sample, left = n, len(stages), asked, total - n * found.clean
    if needed > limit:
        ends = [*accumulate(one.seconds for one in first)]
        kept = sum(end <= left for end in ends)
        if kept:
            each = (
                _each(found, sampled) if kept < len(stages) else sum(one.seconds for one in sampled) / asked
            )
            sample = min(asked, int((left - ends[kept - 1]) / each)) if each else asked
        else:
            images = int(n * total / (first[0].seconds + n * found.clean))
            kept, sample, left = 1, 0, total - images * found.clean
    if images < min(FEWEST, n):
        raise ConfigError(
            f"{in_units(limit)} are too short to attack {min(FEWEST, n)} images on this machine; allow more, "
            f"about {in_units(60 * math.ceil(needed / 60))} for the whole plan"
        )
    chosen = (*first[:kept], *(sampled if sample else ()))
    seconds = sum(one.seconds for one in chosen)
    budgets = [config.budget] if config.budget else []
    if seconds:
        budgets.append(math.ceil(sum(one.passes for one in chosen) / seconds * left / images))
    return Limited(
        seconds=limit,
        needed=needed,
        images=images,
        of=n,
        stages=tuple(stages[:kept]),
        left_out=tuple(stages[kept:]),
        sample=sample,
        sample_of=asked,
        budget=min(budgets, default=None),
    )


def _each(found: Forecast, sampled: Sequence[Expected]) -> float:
    """Seconds of an image of the sample that no stage has attacked in the same way."""
    known = {_own(one): one.seconds / one.images for one in found.stages if one.images}
    return sum(known.get(_own(one), 0.0) for one in sampled)


def _own(one: Expected) -> str:
    return one.name.removeprefix(SAMPLE)
