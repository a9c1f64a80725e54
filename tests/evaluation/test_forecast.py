"""The expected cost is the real one where a pilot can know it, and its bounds are those of the attacks."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from advkit.attacks.engine.oracle import FEWEST
from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import make
from advkit.commands.attack import run as attack
from advkit.core.context import Context
from advkit.core.threat import Threat
from advkit.data.subjects import Subject
from advkit.evaluation import forecast as module
from advkit.evaluation.evaluate import attacked, plan
from advkit.evaluation.forecast import forecast, silent
from advkit.evaluation.missing import SAMPLE
from advkit.evaluation.settings import Evaluation
from advkit.models.checkpoint import save_model

THREAT = Threat("linf", 0.004)


def expected(judged, threat=THREAT, **settings):
    config = Evaluation(model="m", precision="float32", **settings)
    subject = Subject.of(*judged)
    stages = plan(config.attack, threat, 4, config.parameters)
    return forecast(subject, threat, config, stages), attacked(subject, threat, config)


def test_cheap_stages_cost_what_they_cost_in_a_pilot_of_all_images(judged):
    found, real = expected(
        judged, attack=("fgsm", "pgd"), parameters={"pgd": {"steps": 20, "restarts": 2}}, check_sample=0
    )
    assert [stage.name for stage in found.stages] == ["fgsm", "pgd"]
    for one, stage in zip(found.stages, real.stages, strict=True):
        assert one.images == pytest.approx(stage.attacked)
        assert one.passes == pytest.approx(stage.forwards + stage.backwards)
    assert 0 < found.stages[1].images < found.stages[0].images == 28
    assert found.pilot == 30 and found.seconds > 0 and found.memory > 10e6
    assert found.passes == sum(stage.passes for stage in found.stages)


def test_a_pilot_stands_for_all_images(judged, monkeypatch):
    whole, _ = expected(judged, attack=("pgd",), parameters={"pgd": {"steps": 20}}, check_sample=0)
    monkeypatch.setattr(module, "PILOT", 15)
    half, _ = expected(judged, attack=("pgd",), parameters={"pgd": {"steps": 20}}, check_sample=0)
    assert half.pilot == 15
    assert half.stages[0].images == pytest.approx(28)
    assert whole.passes / 2 < half.passes < 2 * whole.passes


@pytest.mark.parametrize(
    ("name", "parameters", "passes"),
    [
        ("pgd", {"steps": 7, "restarts": 3}, 3 * 15),
        ("apgd", {"loss": "ce", "steps": 9}, 19),
        ("apgd", {"loss": "logit-difference", "targets": 9, "steps": 5}, 3 * 11),
        ("square", {"queries": 40}, 41),
    ],
)
def test_most_passes_are_those_of_images_that_stay_robust(judged, name, parameters, passes):
    threat = Threat("linf", 1e-5)
    assert make(name, threat, parameters).most_passes(4) == passes
    config = Evaluation(
        model="m", precision="float32", attack=(name,), parameters={name: parameters}, check_sample=0
    )
    (stage,) = attacked(Subject.of(*judged), threat, config).stages
    assert stage.broken == 0
    assert 0.75 * passes <= (stage.forwards + stage.backwards) / stage.attacked <= 1.02 * passes


def test_the_rounds_of_the_cascade(judged):
    found, real = expected(judged, Threat("linf", 1e-5), check_sample=6)
    about = {stage.name: stage.images for stage in found.stages}
    done = {stage.name: stage.attacked for stage in real.stages}
    assert list(about) == list(done)
    assert about == pytest.approx(done)
    assert {0, 28} < set(done.values())
    real_passes = sum(stage.forwards + stage.backwards for stage in real.stages)
    assert 0.5 < found.passes / real_passes < 2


@pytest.mark.parametrize(
    ("size", "left", "tolerance", "attacked"),
    [
        (8, 100, 0.001, 16),  # after 8 silent images the limit is 37 %, after 16 in two looks 24 %
        (16, 100, 0.001, 16),
        (8, 100, 0.04, 8),  # 34 of the 92 left at most, which are not worth 40
        (8, 100, 0.035, 8),  # nor 35
        (8, 5, 0.001, 5),
        (8, 4800, 0.001, 200),  # a round is a 24th at least
        (1, 24, 0.0007, 23),  # after 23 looks 56 % of the last one
    ],
)
def test_a_stage_that_breaks_nothing_stops(size, left, tolerance, attacked):
    assert silent(Stage("s", "pgd", tolerance=tolerance, round=size), left, 1000) == attacked


class Toy:
    """A cascade of 48 images, of which the first four break, and a clock: a pass of R rows takes R ticks, of
    fewer than 16 rows 16 ticks, and the first one 1,000 more."""

    def __init__(self, open_):
        self.threat, self.clean, self.undecided = THREAT, torch.zeros(48, 4), torch.arange(48) < open_
        self.now, self.slow = 0.0, 1000.0

    def oracle(self, threat, access, precision):
        return None

    def precision(self, stage, attack):
        return None

    def nearest_first(self, rows):
        return sorted(rows)

    def _outcomes(self, attack, rows):
        variants = attack.variants(4)
        self.now += attack.most_passes(4) / variants * max(len(rows) * variants, FEWEST) + self.slow
        self.slow = 0.0
        return [SimpleNamespace(broken=row < 4, passes=attack.most_passes(4)) for row in rows]

    def attack(self, stage, rows):
        return self._outcomes(make(stage.attack, self.threat, stage.parameters), rows)

    def searching(self, key, probe, oracle):
        return SimpleNamespace(
            run=lambda rows, found: [
                found(SimpleNamespace(outcome=one)) for one in self._outcomes(probe, rows.tolist())
            ]
        )


@pytest.mark.parametrize("left", [0.5, 10.0, 5000.0])
@pytest.mark.parametrize(
    ("name", "length"),
    [
        *[("pgd", {"steps": n}) for n in (20, 300, 1000)],
        *[("square", {"queries": n}) for n in (329, 330, 1999)],
    ],
)
@pytest.mark.parametrize("open_", [5, 48])
def test_a_stage_costs_its_images_times_its_passes_times_what_one_takes(
    left, name, length, open_, monkeypatch
):
    """Of the pilot the share that a cheap stage breaks, of a few images that of an expensive one, and of the
    nearest half of what a short form of the most expensive breaks."""
    for restarts, tolerance in itertools.product((1, 3), (0.0, 0.001)):
        toy = Toy(open_)
        monkeypatch.setattr(module.time, "perf_counter", lambda toy=toy: toy.now)
        stage = Stage("s", name, {**length, "restarts": restarts}, tolerance=tolerance)
        passes = restarts * (length.get("queries", 2 * length.get("steps", 0)) + 1)
        short = passes > 2000
        tried = min(48 if passes <= 330 else 8 if not short else max(32, math.ceil(left / 24)), open_)
        share = 4 / tried / (2 if short else 1)
        kept = left * (1 - share)
        count = min(left, left * share + silent(stage, kept, 5000)) if tolerance else left
        timed = math.ceil(left) if short else min(math.ceil(count), open_)
        pilot = module._Pilot(toy, 5000, 20000, math.inf, 123.0)
        found, rest = pilot.stage(stage, left)
        assert (found.images, found.passes, rest) == pytest.approx((count, count * passes, kept))
        each = max(1.0, FEWEST / (max(tried, timed) * restarts))
        assert found.seconds == pytest.approx(count * passes * each)
        left, kept = 4 * left, 4 * kept  # of the whole data set
        whole = min(left, left * share + silent(stage, kept, 20000)) if tolerance else left
        assert found.whole == pytest.approx(whole)
        left, kept = left / 4, kept / 4
        assert pilot.broken == {"s": pytest.approx(left - kept)}


@pytest.mark.parametrize(
    ("broken", "tolerance", "runs"), [(1, 0, 1), (0.9, 0, 0), (5, 0.001, 1), (4.9, 0.001, 0)]
)
def test_a_stage_after_another_runs_if_that_has_changed_enough(broken, tolerance, runs):
    pilot = module._Pilot(Toy(48), 5000, 20000, math.inf, 123.0)
    pilot.broken["first"] = broken
    for after, beyond in (("first", 6), ("first", 7), ("absent", 0)):
        stage = Stage("s", "pgd", {"steps": 20}, after=after, tolerance=tolerance, beyond=beyond)
        found, left = pilot.stage(stage, 7.0)
        ran = runs and after == "first" and beyond < 7
        assert (found.images > 0) == ran and (left < 7) == ran
        assert ran or (found.images, found.passes, found.seconds) == (0, 0, 0)


@pytest.mark.parametrize("within", [2, 5, 9])
def test_a_slow_model_has_a_smaller_pilot(judged, monkeypatch, within):
    """As many images as the first stage attacks in the time; each look at the clock takes a second."""
    clock = itertools.count()
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    config = Evaluation(model="m", precision="float32", check_sample=0)
    stages = plan(("fgsm",), THREAT, 4, {})
    found = forecast(Subject.of(*judged), THREAT, config, stages, within)
    assert found.clean == 1 / min(30, 8 * within) and found.pilot == min(30, 8 * within // 3)


def test_a_sample_is_of_those_that_no_stage_has_attacked_so(judged):
    stages = plan(("cascade",), THREAT, 4, {})
    short = {"round": 13, "rare": 0.25}  # a round has fewer images than are left
    stages = [replace(one, **short) if one.tolerance else one for one in stages]
    for size in (1000, 10):
        config = Evaluation(model="m", precision="float32", check_sample=size)
        found = {one.name: one.images for one in forecast(Subject.of(*judged), THREAT, config, stages).stages}
        sampled = {name: images for name, images in found.items() if name.startswith(SAMPLE)}
        done = [found[name.removeprefix(SAMPLE)] for name in sampled]
        if size == 1000:
            (left,) = {images + by for images, by in zip(sampled.values(), done, strict=True)}
            assert max(done) < left < 28
        assert [*sampled.values()] == [min(math.ceil(size * (1 - by / left)), left - by) for by in done]


def test_memory_is_in_bytes(monkeypatch):
    here = module._memory(torch.device("cpu"))
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert here / module._memory(torch.device("cpu")) == pytest.approx(1024, rel=0.2)


def test_a_dry_run_says_what_is_expected(judged):
    model, data = judged
    save_model(model, "clf.pt")
    np.savez("toy.npz", x=data.images.numpy(), y=data.labels.numpy())
    config = Evaluation(
        model="clf.pt", data="npz:toy.npz", norm="linf", eps=0.004, attack=("fgsm",), precision="float32"
    )
    plan = attack(config, Context(dry_run=True))
    assert plan.result["expected"]["passes"] == pytest.approx(28 * 3)
    assert plan.tables[0].rows[0][4:6] == ("60", "84")
    assert plan.result["attacks"] == ["fgsm"]
    certified = attack(config.model_copy(update={"certify": True}), Context(dry_run=True))
    assert certified.result["expected"] is None
    assert not Path("runs").exists()


def test_a_stage_of_which_a_short_form_breaks_some_leaves_fewer(judged, monkeypatch):
    stages = (Stage("first", "pgd", {"steps": 20}), Stage("last", "fgsm"))
    monkeypatch.setattr(module, "CHEAP", 3)
    monkeypatch.setattr(module, "EXPENSIVE", 4)
    config = Evaluation(model="m", precision="float32", check_sample=0)
    subject = Subject.of(*judged)
    first, last = forecast(subject, THREAT, config, stages).stages
    broken = attacked(subject, THREAT, config.model_copy(update={"attack": ("pgd",)})).stages[0].broken
    assert first.images == 28 and 28 - last.images == pytest.approx(broken / 2) != 0
    assert first.passes == pytest.approx(28 * 41)


def test_what_a_pilot_has_no_time_for_costs_all_its_passes(judged):
    stages = plan(("fgsm", "pgd"), THREAT, 4, {"pgd": {"steps": 20}})
    config = Evaluation(model="m", precision="float32", check_sample=0)
    found = forecast(Subject.of(*judged), THREAT, config, stages, 1e-9)
    assert found.pilot == 1
    assert [one.passes / one.images for one in found.stages] == [3, 41]
    assert all(one.seconds == pytest.approx(one.passes * found.clean) for one in found.stages)
    slow = forecast(Subject.of(*judged), THREAT, config, stages, 1e9)
    assert slow.pilot == 30 and slow.stages[1].images < found.stages[1].images
