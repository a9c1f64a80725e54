"""What `advkit attack --dry-run` expects, beside what the attack then costs.

    python recipes/bench/forecast.py MODEL DATA NORM EPS N [--mean ... --std ...]

MODEL is whatever `advkit.load_model` takes, DATA a data set. Expected time on 2 cores: one to three minutes
for 200 images of MNIST. Printed is a row of a table: expected and real passes and seconds and their ratios,
of the whole evaluation with its checks; with --stages a row for each stage. The forecast and the attack run
in turn in one process.
"""

from __future__ import annotations

import argparse
import time

from advkit.core.config import parse_fraction
from advkit.core.context import Context
from advkit.core.progress import Progress, Task
from advkit.core.threat import Threat
from advkit.data.subjects import Subject
from advkit.evaluation.evaluate import attacked, plan
from advkit.evaluation.forecast import forecast
from advkit.evaluation.result import EvaluationResult
from advkit.evaluation.settings import Evaluation


class Stopwatch(Progress):
    """When each task began."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []

    def task(self, name: str, total: int, *, done: int = 0, unit: str = "step") -> Task:
        """Notes the time."""
        self.begun.append((name, time.perf_counter()))
        return super().task(name, total, done=done, unit=unit)

    def seconds(self, stage: str) -> float:
        """From the beginning of the tasks of a stage to that of the next one."""
        ends = [at for _, at in self.begun[1:]] + [time.perf_counter()]
        return sum(
            end - at for (name, at), end in zip(self.begun, ends, strict=True) if name.endswith(f" {stage}")
        )


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("model", "data", "norm", "eps"):
        options.add_argument(name)
    options.add_argument("n", type=int)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--mean", type=float, nargs="+", default=())
    options.add_argument("--std", type=float, nargs="+", default=())
    options.add_argument("--stages", action="store_true")
    chosen = options.parse_args()
    given = {name: getattr(chosen, name) for name in ("model", "data", "n", "seed", "mean", "std")}
    config = Evaluation(**given)
    subject = Subject.open(config, Context())
    threat = Threat(chosen.norm, float(parse_fraction(chosen.eps)))
    stages = plan(config.attack, threat, subject.images.classes, config.parameters)
    begun = time.perf_counter()
    likely = forecast(subject, threat, config, stages)
    pilot, begun = time.perf_counter() - begun, time.perf_counter()
    watch = Stopwatch()
    real = attacked(subject, threat, config, progress=watch)
    seconds = time.perf_counter() - begun
    assert isinstance(real, EvaluationResult)
    if chosen.stages:
        for one, stage in zip(likely.stages, real.stages, strict=True):
            passes = stage.forwards + stage.backwards
            print(
                f"{one.name:50} {one.images:7.1f} {stage.attacked:5} {one.passes:12,.0f} {passes:12,} "
                f"{one.seconds:7.1f} s {watch.seconds(stage.name):7.1f} s"
            )
    passes = real.forwards + real.backwards
    print(
        f"{chosen.model.rpartition('/')[2]} | {chosen.data} | {threat} | {chosen.n} | {likely.passes:,.0f} | "
        f"{passes:,} | {likely.passes / passes:.2f} | {likely.seconds:.1f} s | {seconds:.1f} s | "
        f"{likely.seconds / seconds:.2f} | pilot {pilot:.1f} s | robust {real.robust_accuracy:.3f}"
    )


if __name__ == "__main__":
    main()
