"""What an image costs is what the attacks have counted, and all images what the plan comes to on so many."""

from types import SimpleNamespace

import pytest

from advkit.attacks.ensemble import Stage
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.data.subjects import Subject
from advkit.evaluation.cost import cost
from advkit.evaluation.evaluate import attacked, plan
from advkit.evaluation.forecast import forecast, reached
from advkit.evaluation.settings import Evaluation

THREAT = Threat("linf", 0.004)


def evaluated(judged, n=None, run=None, threat=THREAT, **settings):
    config = Evaluation(model="m", precision="float32", **settings)
    return attacked(Subject.of(*judged, n), threat, config, run=run)


def test_a_part_costs_its_share_of_all(judged):
    whole = evaluated(judged, attack=("fgsm", "pgd"))
    spent = sum(stage.forwards + stage.backwards for stage in whole.stages)
    assert whole.cost.passes == 1 + spent / 30 and whole.cost.images == 30
    assert whole.cost.all_passes == pytest.approx(30 * whole.cost.passes)
    assert whole.cost.all_seconds == pytest.approx(30 * whole.cost.seconds)
    assert 0 < whole.cost.all_seconds < whole.seconds
    part = evaluated(judged, 10, attack=("fgsm", "pgd"))
    assert part.cost.images == 30 and part.n == 10
    assert part.cost.all_passes == pytest.approx(30 * part.cost.passes)


def test_a_dry_run_and_its_attack_say_the_same_of_all(judged):
    stages = plan(("pgd",), THREAT, 4, {"pgd": {"steps": 20}})
    config = Evaluation(model="m", precision="float32", attack=("pgd",), parameters={"pgd": {"steps": 20}})
    likely = forecast(Subject.of(*judged), THREAT, config, stages).cost
    real = attacked(Subject.of(*judged), THREAT, config).cost
    assert likely.passes == pytest.approx(real.passes)
    assert likely.images == real.images == 30 and likely.all_passes == pytest.approx(real.all_passes)
    assert likely.seconds > 0 < likely.all_seconds


def test_what_earlier_processes_attacked_has_no_time(judged, tmp_path):
    for number in (1, 2):
        with RunFolder.open("attack", "toy", Evaluation(model="m"), tmp_path / "run") as run:
            found = evaluated(judged, attack=("fgsm",), run=run)
        if number == 1:
            first = found
    assert first.cost.seconds > 0 < first.cost.all_seconds
    assert found.cost.seconds is None and found.cost.all_seconds is None
    assert found.cost.all_passes == first.cost.all_passes


PLAIN, ROUNDS = Stage("one", "pgd"), Stage("one", "pgd", tolerance=0.001, round=32)
SAMPLE = Stage("sample/one", "pgd")


@pytest.mark.parametrize(
    ("stage", "attacked", "left", "hits", "of_all"),
    [
        (PLAIN, 90, 0, 0, 9000),
        (PLAIN, 0, 0, 0, 0),
        (ROUNDS, 40, 0, 0, 4000),  # more than one round: all that there were
        (ROUNDS, 32, 0, 0, reached(ROUNDS, 3200, 8 / 32, 10_000)),
        (ROUNDS, 32, 50, 0, reached(ROUNDS, 8200, 8 / 82, 10_000)),
        (Stage("cut", "pgd", tolerance=0.001), 32, 50, 0, 3200),
        (SAMPLE, 20, 70, 0, 200),  # twice the root of the images
        (SAMPLE, 10, 0, 0, 100),
        (SAMPLE, 60, 0, 2, 6000),  # what falls has all survivors attacked
    ],
)
def test_what_each_stage_would_attack_of_all_images(stage, attacked, left, hits, of_all):
    """Of 10,000 after 100. Half the passes were timed, in this process: they took 3 seconds; and of a second
    stage with an attack on each image one pass, which took a 40th."""
    done = SimpleNamespace(name=stage.name, attacked=attacked, left=left, broken=8, passes=800)
    last = SimpleNamespace(name="last", attacked=100, left=0, broken=0, passes=200)
    cascade = SimpleNamespace(
        images=range(100),
        stages=[stage, Stage("last", "fgsm")],
        config=SimpleNamespace(check_sample=None, attack=("cascade",)),
        missing=SimpleNamespace(hits=hits) if hits or (stage is SAMPLE and left) else None,
        timed={stage.name: (400, 3.0), "last": (1, 0.025)},
        cut_short=["cut"],
    )
    found, ran = cost(cascade, [done, last], 2.0, 10_000), bool(attacked)
    times = of_all / max(attacked, 1)
    assert found.passes == pytest.approx(1 + (800 * ran + 200) / 100)
    assert found.seconds == pytest.approx((2 + 6 * ran + 5) / 100)
    assert found.all_passes == pytest.approx(10_000 + 800 * times + 200 * 100)
    assert found.all_seconds == pytest.approx(200 + 6 * times + 500)
    assert found.images == 10_000
    del cascade.timed["last"]
    unknown = cost(cascade, [done, last], 2.0, 10_000)
    assert unknown == found.model_copy(update={"seconds": None, "all_seconds": None})
