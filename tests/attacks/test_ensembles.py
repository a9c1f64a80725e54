"""What the ensembles plan."""

import pytest
import torch

import advkit
from advkit.attacks.attack import ATTACKS
from advkit.attacks.ensemble import ENSEMBLES, Stage
from advkit.attacks.losses.margin import margin
from advkit.attacks.perturb import make
from advkit.core.threat import Threat
from advkit.evaluation.evaluate import plan

EPS = {"linf": 0.1, "l2": 1.0, "l1": 5.0, "l0": 5}


def stages(name, norm="linf", classes=10, **parameters):
    kind = ENSEMBLES.get(name)
    return kind(kind.Config(**parameters)).stages(Threat(norm, EPS[norm]), classes)


def summary(planned):
    return [(stage.key, dict(stage.parameters)) for stage in planned]


NINE, FIVE = {"targets": 9}, {"restarts": 5}
STANDARD = [("apgd-ce", {}), ("apgd-t", NINE), ("fab-t", NINE), ("square", {"queries": 5000})]


def test_autoattack_is_the_published_one():
    assert summary(stages("autoattack")) == STANDARD
    l1 = [("apgd-ce", FIVE), ("apgd-t", {"targets": 5}), *STANDARD[2:]]
    assert summary(stages("autoattack", "l1")) == l1
    assert [one.parameters for one in stages("autoattack", "l1", 5)[1:3]] == [{"targets": 4}] * 2
    plus = [("apgd-ce", FIVE), ("apgd-dlr", FIVE), ("fab", FIVE), STANDARD[3], *STANDARD[1:3]]
    assert summary(stages("autoattack", version="plus")) == plus
    averaged = [("apgd-ce", {"samples": 20}), ("apgd-dlr", {"samples": 20})]
    assert summary(stages("autoattack", version="rand")) == averaged
    two = [stages("autoattack", classes=k, version="plus")[1].parameters.get("loss") for k in (2, 3)]
    assert two == ["margin", None]


CASCADE = """
likeliest     apgd   25    1 1 logit-difference - 32 0.0
three-targets apgd   20    1 3 logit-difference - 32 0.0
fmn-t         fmn-t  50    1 3 -    float32 36 0.001
all-targets   apgd   50    1 9 dlr  float32 36 0.001 36
diversified   apgd   52    2 0 ce   float32 36 0.001
fmn-again     fmn-t  100   1 9 -    float32 36 0.001 fmn-t
ce-again      apgd   100   5 0 ce   float32 36 0.001 diversified
restarts      apgd   100   1 9 dlr  float32 36 0.001
square        square 5000  1 0 -    -       13 0.001
square-longer square 10000 1 0 -    -       13 0.001 square
"""
"""Key of the random numbers, attack, steps, starts, targets, loss, precision, least round, tolerance, the
number of images that must be exceeded, and the key of the stage that must succeed. The keys must never
change: published figures follow from them."""


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [2, 3, 4, 10, 1000])
def test_the_cascade_costs_what_its_published_figures_cost(classes, norm):
    planned = stages("cascade", norm, classes=classes)
    keys = {stage.name: stage.key for stage in planned}
    lines = CASCADE.strip().splitlines()
    if norm != "linf":
        lines[3], lines[5] = lines[3].removesuffix(" 36"), lines[5].removesuffix(" fmn-t")
        lines[5:8] = [lines[6], lines[5]]  # targeted FMN in the place of the longest Auto-PGD
    for stage, line in zip(planned, lines, strict=True):
        made, wanted = make(stage.attack, Threat(norm, 0.1), stage.parameters), line.split()
        wanted[4] = str(min(int(wanted[4]), classes - 1))
        wanted[5] = "logit-difference" if wanted[5] == "dlr" and classes < 4 else wanted[5]
        seen = [stage.key, stage.attack, made.steps, made.starts, made.targets, stage.parameters.get("loss")]
        seen += [stage.precision, stage.round, stage.tolerance, *([stage.beyond] if stage.beyond else [])]
        seen += [keys[stage.after]] if stage.after else []
        assert ["-" if each is None else str(each) for each in seen] == wanted
    assert summary(stages("cascade", "l0")) == [("sigma-zero", {"steps": 100}), ("fmn", {})]
    assert [stage.tolerance for stage in stages("cascade", tolerance=0.5)] == [0.0] * 2 + [0.5] * 8
    whole = stages("cascade", tolerance=0)  # all on all
    assert not any(stage.tolerance or stage.after or stage.beyond for stage in whole)
    *usual, last = stages("cascade", ascents=7)  # on all that are left
    assert usual == list(stages("cascade")) and (last.attack, last.tolerance) == ("memetic", 0)
    assert make(last.attack, Threat("linf", 0.1), last.parameters).steps == 7 * 30


def test_stages_are_named_after_attacks_and_their_parameters():
    names = [stage.name for name in ("cascade", "autoattack") for stage in stages(name)]
    assert names[0] == "apgd-t (1 target, 25 steps)" and names[8] == "square (5,000 queries)"
    assert names[4] == "apgd-ce (diversified start, 2 restarts, 50 steps)"
    assert names[10:] == [
        "apgd-ce (100 steps)", "apgd-t (9 targets, 100 steps)", "fab-t (9 targets, 100 steps)",
        "square (5,000 queries)",
    ]  # fmt: skip


def test_two_ensembles_share_neither_names_nor_random_numbers():
    both = plan(["autoattack", "cascade"], Threat("linf", 0.1), 10, {})
    assert len({stage.name for stage in both}) == len({stage.key for stage in both}) == len(both) == 14
    assert [stage.key for stage in both if "/" in stage.key] == ["cascade/square"]
    twice = ["cascade/apgd-t (9 targets, 100 steps)", "cascade/square (5,000 queries)"]
    assert [stage.name for stage in both if "/" in stage.name] == twice
    assert both[-1].after == "cascade/square (5,000 queries)"


def test_a_plan_is_recorded_without_keys_that_names_imply():
    assert "key" not in Stage("pgd", "pgd").identity
    assert all("key" in stage.identity for stage in stages("cascade"))
    assert ["beyond" in stage.identity for stage in stages("cascade")] == [False] * 3 + [True] + [False] * 6


@pytest.mark.parametrize("name", [entry.name for entry in ENSEMBLES])
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("norm", EPS)
def test_every_plan_can_be_made_for_any_number_of_classes(name, norm, classes):
    if name in ("autoattack", "black-box") and norm == "l0":
        pytest.skip("not defined in l0")
    planned = stages(name, norm, classes)
    assert len({stage.name for stage in planned}) == len(planned)
    for stage in planned:
        made = make(stage.attack, Threat(norm, EPS[norm]), stage.parameters)
        assert made.targets < classes
        if "dlr" in (stage.parameters.get("loss"), getattr(made, "loss_name", None)):
            assert classes >= (4 if made.targets else 3)
        assert stage.after is None or stage.after in {other.name for other in planned}
        assert stage.attack in ATTACKS


def test_the_cascade_finds_what_autoattack_finds(convolutional):
    model, data = convolutional
    threat = Threat("linf", 0.04)
    short = {"autoattack": {"queries": 200}}
    ours = advkit.evaluate(model, data, threat, "cascade")
    theirs = advkit.evaluate(model, data, threat, "autoattack", parameters=short)
    assert 0 < ours.robust_correct <= theirs.robust_correct < len(data)


def evaluation(model, data, planned, monkeypatch, **more):
    """An evaluation of other stages than an ensemble's."""
    from advkit.evaluation import evaluate as module

    monkeypatch.setattr(module, "plan", lambda *_: tuple(planned))
    return advkit.evaluate(model, data, Threat("linf", 0.01), "cascade", check_sample=0, **more)


def test_rounds_take_the_nearest_first_and_stop_when_nothing_falls(convolutional, monkeypatch):
    model, data = convolutional
    first = Stage("first", "apgd", {"steps": 3})
    rounds = Stage("rounds", "fgsm", tolerance=0.3, round=8)
    result = evaluation(model, data, [first, rounds], monkeypatch)
    opening, later = result.stages
    assert opening.attacked == len(data)
    assert later.attacked % 8 == 0 and later.attacked < opening.correct_after
    only_first = evaluation(model, data, [first], monkeypatch)
    margins = {v.id: v.margin for v in only_first.verdicts if v.status == "robust"}
    nearest = sorted(margins, key=margins.__getitem__, reverse=True)[: later.attacked]
    pairs = zip(result.verdicts, only_first.verdicts, strict=True)
    assert {one.id for one, two in pairs if one.forwards > two.forwards} == set(nearest)
    everything = evaluation(model, data, [first, Stage("rounds", "fgsm")], monkeypatch)
    assert everything.stages[1].attacked == opening.correct_after


def test_a_stage_for_many_images_leaves_few_to_a_later_one(convolutional, monkeypatch):
    model, data = convolutional
    one, rest = Stage("one", "apgd", {"steps": 5}), Stage("rest", "apgd", {"steps": 9})
    left = evaluation(model, data, [one], monkeypatch).robust_correct
    for beyond, attacked in ((left, 0), (left - 1, left)):
        planned = [one, Stage("some", "fgsm", tolerance=1e-9, round=left, beyond=beyond), rest]
        result = evaluation(model, data, planned, monkeypatch)
        assert result.stages[1].attacked == attacked and result.stages[2].attacked > 0


def test_a_stage_may_wait_for_another_to_succeed(convolutional, monkeypatch):
    model, data = convolutional
    never = [Stage("noise", "noise", {"draws": 2}), Stage("more", "apgd", {"steps": 5}, after="noise")]
    result = evaluation(model, data, never, monkeypatch)
    broken = result.stages[0].broken
    assert (result.stages[1].attacked > 0) == (broken > 0)
    always = [Stage("one", "apgd", {"steps": 5}), Stage("more", "fgsm", after="one")]
    assert evaluation(model, data, always, monkeypatch).stages[1].attacked > 0


def test_a_budget_ends_the_search_between_rounds(convolutional, monkeypatch):
    model, data = convolutional
    planned = [Stage("one", "apgd", {"steps": 5}), Stage("two", "apgd", {"steps": 50})]
    spent = evaluation(model, data, planned, monkeypatch, budget=3)
    assert spent.stages[0].attacked == len(data) and spent.stages[1].attacked == 0
    whole = evaluation(model, data, planned, monkeypatch)
    assert whole.stages[1].attacked > 0 and whole.robust_correct <= spent.robust_correct


def test_margins_are_the_models_own(convolutional, monkeypatch):
    model, data = convolutional
    result = evaluation(model, data, [Stage("fgsm", "fgsm")], monkeypatch, precision="float32")
    with torch.no_grad():
        logits = model.eval()(data.images)
    clean = margin(logits, data.labels)
    for verdict in result.verdicts:
        if verdict.status == "robust":
            assert float(clean[verdict.id]) - 1e-4 <= verdict.margin < 0
