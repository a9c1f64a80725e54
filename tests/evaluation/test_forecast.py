"""The expected cost is the real one where a pilot can know it, and its bounds are those of the attacks."""

from pathlib import Path

import numpy as np
import pytest

from advkit.attacks.ensemble import Stage
from advkit.attacks.perturb import make
from advkit.commands.attack import run as attack
from advkit.core.context import Context
from advkit.core.threat import Threat
from advkit.data.subjects import Subject
from advkit.evaluation import forecast as module
from advkit.evaluation.evaluate import attacked, plan
from advkit.evaluation.forecast import forecast, silent
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


def test_expensive_stages_cost_all_their_passes(judged, monkeypatch):
    settings = {"attack": ("square",), "parameters": {"square": {"queries": 300}}, "check_sample": 0}
    monkeypatch.setattr(module, "CHEAP", 300)
    monkeypatch.setattr(module, "EXPENSIVE", 300)
    found, _ = expected(judged, Threat("linf", 1e-5), **settings)
    assert found.stages[0].passes == pytest.approx(28 * 301)
    monkeypatch.setattr(module, "CHEAP", 301)
    found, real = expected(judged, Threat("linf", 1e-5), **settings)
    assert found.stages[0].passes == real.stages[0].forwards < 28 * 301


def test_expensive_stages_are_tried_on_a_few_images(judged, monkeypatch):
    monkeypatch.setattr(module, "CHEAP", 10)
    settings = {"attack": ("pgd",), "parameters": {"pgd": {"steps": 20}}, "check_sample": 0}
    monkeypatch.setattr(module, "FEW", 30)
    found, real = expected(judged, **settings)
    assert found.passes == pytest.approx(real.stages[0].forwards + real.stages[0].backwards)
    monkeypatch.setattr(module, "EXPENSIVE", 41)
    assert expected(judged, **settings)[0].passes == pytest.approx(found.passes)
    monkeypatch.setattr(module, "EXPENSIVE", 40)
    assert expected(judged, **settings)[0].passes == pytest.approx(28 * 41)


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
        (8, 5, 0.001, 5),
        (8, 4800, 0.001, 200),  # a round is a 24th at least
    ],
)
def test_a_stage_that_breaks_nothing_stops(size, left, tolerance, attacked):
    assert silent(Stage("s", "pgd", tolerance=tolerance, round=size), left, 1000) == attacked


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
