"""What fits into a time limit is the most that does, is chosen once, and the result says what is left out."""

from pathlib import Path

import numpy as np
import pytest

from advkit.commands.attack import run as attack
from advkit.core.config import parse_seconds, validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.runs import began
from advkit.core.threat import Threat
from advkit.evaluation import time_limit as module
from advkit.evaluation.cascade import Cascade
from advkit.evaluation.evaluate import evaluate
from advkit.evaluation.forecast import Expected, Forecast
from advkit.evaluation.result import EvaluationResult, in_units
from advkit.evaluation.settings import Evaluation
from advkit.evaluation.time_limit import ATTACKS, CHOSEN, FEWEST, choose
from advkit.models.checkpoint import save_model

NAMES = ("a", "b", "c")
PLAN = (
    Expected("a", 1000, 1000, 10.0),
    Expected("b", 500, 4000, 20.0),
    Expected("c", 100, 8000, 40.0),
    Expected("sample/c", 50, 4000, 20.0),
    Expected("sample/d", 60, 6000, 30.0),
)


LINF = Threat("linf", 0.004)


def chosen(limit, spent=0.0, clean=0.0, stages=PLAN, n=1000, names=NAMES, **settings):
    config = Evaluation(model="m", time_limit=limit, **settings)
    return choose(Forecast(48, n, n, stages, 0, clean), names, config, n, spent)


def fits(seconds, clean=0.0):
    """The limit in which attacks have so many seconds."""
    return (seconds + 1000 * clean) / ATTACKS + 1e-6


def test_times_are_written_in_the_largest_unit():
    times = {7200: "2h", 600: "10m", 90: "90s", 3660: "61m", 0.5: "0.5s"}
    assert {parse_seconds(text): in_units(seconds) for seconds, text in times.items()} == times


@pytest.mark.parametrize("text", ["0s", "-3m", 0])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ConfigError, match="time_limit"):
        validate(Evaluation, {"model": "m", "time_limit": text}, "options")


def test_all_is_kept_where_it_fits():
    found = chosen(fits(120))
    assert (found.images, found.of, found.stages, found.left_out) == (1000, 1000, NAMES, ())
    assert found.sample == found.sample_of == 63
    assert not found.weaker and not found.shortened
    assert found.needed == pytest.approx(120 / ATTACKS) and chosen(1e6).needed == found.needed
    assert chosen(1e6, spent=7, clean=0.01).needed == pytest.approx(7 + 130 / ATTACKS)
    assert found.flag == "--time-limit 3m"


@pytest.mark.parametrize(
    ("seconds", "kept", "sample"),
    [
        (119.9, 3, 62),  # of 63 that take 50 seconds
        (95, 3, 31),
        (70.5, 3, 0),
        (70, 3, 0),
        (69.9, 2, 44),  # of .9 seconds each: .4 as by the stage itself, and .5
        (30.95, 2, 1),
        (30, 2, 0),
        (29.9, 1, 22),
        (10, 1, 0),
    ],
)
def test_the_sample_becomes_smaller_and_then_later_stages_go(seconds, kept, sample):
    found = chosen(fits(seconds))
    assert (len(found.stages), found.sample, found.images) == (kept, sample, 1000)
    assert found.left_out == NAMES[kept:] and found.weaker and found.shortened
    again = chosen(fits(seconds, clean=0.02) + 3, spent=3, clean=0.02)
    assert (again.stages, again.sample) == (found.stages, sample)


def test_an_image_of_the_sample_costs_what_it_costs_elsewhere():
    stages = (*PLAN[:3], Expected("sample/c", 0, 0, 0), Expected("sample/d", 0, 0, 0))
    assert chosen(fits(50), stages=stages).sample == 50  # .4 seconds each, as of stage c
    unknown = (*PLAN[:2], Expected("c", 100, 1e5, 900.0), Expected("sample/e", 0, 0, 0))
    assert chosen(fits(50), stages=unknown).sample == 63


def test_only_where_no_stage_fits_there_are_fewer_images():
    found = chosen(fits(5))
    assert found.images in (499, 500) and (found.stages, found.sample) == (("a",), 0)
    assert chosen(fits(9.99)).images == 999
    limited = chosen(5 / ATTACKS + 1e-6, clean=0.01)  # each image takes a hundredth more
    assert limited.images == 250 and limited.weaker
    least = chosen(0.165 / ATTACKS)
    assert least.images == FEWEST
    with pytest.raises(ConfigError):
        chosen(0.155 / ATTACKS)
    with pytest.raises(ConfigError):
        chosen(10, spent=11)
    few = tuple(Expected(one.name, one.images, one.passes, one.seconds) for one in PLAN[:1])
    assert chosen(1e3, stages=few, n=3, names=("a",)).images == 3


def test_the_budget_is_what_the_time_is_enough_for():
    assert chosen(fits(120)).budget == 23 + 1  # 23,000 passes in 120 seconds, rounded up
    assert chosen(fits(240)).budget == 46 + 1
    assert chosen(fits(69.9)).budget == int((23000 - 8000) / 80 * 69.9 / 1000) + 1
    assert chosen(fits(20)).budget == int(11000 / 60 * 20 / 1000) + 1  # with a sample
    assert chosen(fits(10)).budget == 2  # without one: 1,000 passes in 10 seconds
    assert chosen(fits(5)).budget == 2
    assert chosen(fits(120), budget=7).budget == 7
    idle = tuple(Expected(one.name, 0, 0, 0.0) for one in PLAN)
    assert chosen(9, stages=idle).budget is None and chosen(9, stages=idle, budget=5).budget == 5


@pytest.fixture
def told(monkeypatch):
    """Says what the pilot finds of the stages that it is asked about, in order."""

    def tell(*seconds, passes=1e5, sample=()):
        def forecast(subject, threat, config, stages, within):
            assert within == pytest.approx(config.time_limit * 0.1)
            names = [*(one.name for one in stages), *(f"sample/{name}" for name in sample)]
            each = zip(names, seconds, strict=True)
            return Forecast(30, 30, 30, tuple(Expected(name, 28, passes, time) for name, time in each), 0)

        monkeypatch.setattr(module, "forecast", forecast)

    return tell


ATTACKED = {"attack": ["fgsm", "pgd", "apgd"], "precision": "float32", "check_sample": 0}


def test_what_is_left_out_stands_above_the_number(judged, told):
    told(1e-3, 1e-3, 1e9)
    whole = evaluate(*judged, LINF, ["fgsm", "pgd"], precision="float32", check_sample=0)
    found = evaluate(*judged, LINF, time_limit="10m", **ATTACKED)
    assert found.limited.left_out == ("apgd",) and [one.name for one in found.stages] == ["fgsm", "pgd"]
    assert [one.status for one in found.verdicts] == [one.status for one in whole.verdicts]
    assert found.limited.shortened in str(found).splitlines()[0]
    assert not found.trusted and "time-limit" in {one.name for one in found.checks if one.verdict == "doubt"}
    doubt = next(one for one in found.checks if one.name == "time-limit")
    assert doubt.flags == found.limited.flag
    assert EvaluationResult.from_json(found.to_json()) == found
    told(1e-3, 1e-3, 1e-3)
    found = evaluate(*judged, LINF, time_limit=600, **ATTACKED)
    assert not found.limited.shortened and "time-limit" not in {one.name for one in found.checks}
    assert len(found.stages) == 3 and found.status == "complete"


def test_a_random_sample_takes_the_doubt_away(judged, told):
    told(1e-3, 1e9, 1e-6, 1e-6, sample=("square (5,000 queries)", "apgd-t (3 targets, 100 steps)"))
    found = evaluate(*judged, LINF, ["fgsm", "pgd"], precision="float32", check_sample=5, time_limit=600)
    assert found.limited.left_out == ("pgd",) and found.limited.sample == 5
    check = next(one for one in found.checks if one.name == "time-limit")
    assert found.missing is not None and (check.verdict == "ok") == bool(found.missing)
    assert found.limited.shortened in found.notes


def test_fewer_images_are_a_part_of_the_split(judged, told):
    told(700.0, 1, 1)
    found = evaluate(*judged, LINF, time_limit="10m", **ATTACKED)
    assert FEWEST <= found.n < 30 and found.status == "partial" and found.limited.of == 30
    assert [one.id for one in found.verdicts] == [*range(found.n)]


def test_a_pilot_that_was_wrong_is_cut_short(judged, told):
    told(200.0, 200.0, 100.0, passes=10)  # a pass on each image
    found = evaluate(*judged, LINF, time_limit=600, **ATTACKED)
    assert found.limited.cut_short == ("pgd", "apgd") and not found.limited.left_out
    assert [one.attacked for one in found.stages] == [28, 0, 0]
    assert found.limited.shortened in found.notes and not found.trusted


def config(**more):
    given = {"model": "clf.pt", "data": "npz:toy.npz", "norm": "linf", "eps": 0.004, **ATTACKED}
    return Evaluation(**{**given, "time_limit": 600, **more})


@pytest.fixture
def files(judged, tmp_path, monkeypatch):
    """A folder with the judged model as clf.pt and its images as toy.npz."""
    monkeypatch.chdir(tmp_path)
    model, data = judged
    save_model(model, "clf.pt")
    np.savez("toy.npz", x=data.images.numpy(), y=data.labels.numpy())


def test_a_resumed_run_keeps_what_was_chosen(files, told, monkeypatch):
    told(780.0, 1e-3, 1e-3)
    whole = attack(config(), Context(out=Path("whole"))).stored
    assert whole.n == 19 and whole.limited.left_out == ("pgd", "apgd")

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Cascade, "verdicts", killed)
        with pytest.raises(Killed):
            attack(config(), Context())
    (folder,) = Path("runs").iterdir()
    kept = began(folder / "resolved.json")["inputs"][CHOSEN]
    monkeypatch.setattr(module, "forecast", killed)  # is not asked again
    again = attack(config(time_limit="10m"), Context())
    assert again.files[-1] == folder and again.stored.limited.model_dump(mode="json") == kept
    assert again.stored.verdicts == whole.verdicts
    assert attack(config(), Context(out=again.files[-1])).result == again.result
    with pytest.raises(ConfigError):
        attack(config(time_limit=601), Context(out=again.files[-1]))


def test_a_dry_run_shows_what_would_be_chosen(files, told):
    told(1e-3, 1e-3, 1e9)
    plan = attack(config(), Context(dry_run=True))
    assert plan.result["limited"]["left_out"] == ["apgd"]
    assert plan.result["expected"]["seconds"] > 1e9
    said = [line for line in plan.sentences if "limit" in line]
    told(1e-3, 1e-3, 1e-3)
    plan = attack(config(), Context(dry_run=True))
    assert not plan.result["limited"]["left_out"]
    assert len(said) == 1 and said[0] not in plan.sentences
    assert attack(config(time_limit=None), Context(dry_run=True)).result["limited"] is None
    assert not Path("runs").exists()


def test_it_is_for_one_process(files, told, monkeypatch):
    monkeypatch.setattr(module.distributed, "world", lambda: 2)
    with pytest.raises(ConfigError):
        attack(config(), Context(dry_run=True))


@pytest.mark.parametrize(
    "more", [{"shard": "1/2"}, {"certify": True}, {"surrogate": "clf.pt"}, {"attack": ("art:PGD",)}]
)
def test_what_no_pilot_can_tell_is_refused(files, told, more):
    told()
    with pytest.raises(ConfigError):
        attack(config(**more), Context(out=Path("run")))


def test_the_pilot_itself_is_real(judged):
    found = evaluate(*judged, LINF, "fgsm", precision="float32", time_limit="10m")
    assert found.limited.budget > 0 and 0 < found.limited.needed < 600 and not found.limited.shortened
