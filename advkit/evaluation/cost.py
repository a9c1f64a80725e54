"""What an evaluation has cost, and what its plan would cost on all images of the data set."""

from __future__ import annotations

from collections.abc import Sequence

from advkit.attacks.ensemble import Stage
from advkit.evaluation import result
from advkit.evaluation.cascade import Cascade
from advkit.evaluation.forecast import reached
from advkit.evaluation.missing import SAMPLE, sample_size
from advkit.evaluation.result import Cost


def cost(cascade: Cascade, stages: Sequence[result.Stage], clean: float, of: int) -> Cost:
    """The cost of a finished evaluation.

    Args:
        clean: seconds of the pass before the attacks, over all images.
        of: images of the data set.
    """
    n, names = len(cascade.images), {stage.name: stage for stage in cascade.stages}
    passes = all_passes = 0.0
    seconds, all_seconds, unknown = clean, clean * of / n, False
    for one in stages:
        if not one.attacked:
            continue
        timed, time = cascade.timed.get(one.name, (0, 0.0))
        unknown |= not timed
        time *= one.passes / max(1, timed)  # earlier processes took as long for a pass
        times = _of_all(one, names[one.name], cascade, of) / one.attacked
        passes, all_passes = passes + one.passes, all_passes + times * one.passes
        seconds, all_seconds = seconds + time, all_seconds + times * time
    return Cost(
        passes=1 + passes / n,
        seconds=None if unknown else seconds / n,
        images=of,
        all_passes=of + all_passes,
        all_seconds=None if unknown else all_seconds,
    )


def _of_all(one: result.Stage, stage: Stage, cascade: Cascade, of: int) -> float:
    """Images that a stage would attack, of all images of the data set."""
    n, config = len(cascade.images), cascade.config
    if one.name.startswith(SAMPLE):
        asked = config.check_sample, config.attack
        if one.attacked <= (size := sample_size(*asked, n)):  # else it went on to all survivors
            return one.attacked * sample_size(*asked, of) / size
    begun = one.attacked + one.left
    if one.name in cascade.cut_short or (not one.left and one.attacked > stage.round):
        return one.attacked * of / n
    return reached(stage, begun * of / n, one.broken / begun, of)
