"""What a random sample of the survivors says about the others."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import advkit
from advkit.attacks.ensembles.cascade import long_attacks
from advkit.core.stats import most_successes
from advkit.core.threat import Threat
from advkit.evaluation.check import CHECKS, Doubt
from advkit.evaluation.missing import again, look, sample_attacks, sample_size
from advkit.evaluation.result import Missing, Stage

MORE = {"key": "another"}, {"attack": "pgd"}, {"parameters": {"queries": 500}}
"""What makes a stage another attack than one of the check."""


class Scripted:
    """A cascade of 60 images, ten of them wrong, whose attacks break what they are told to."""

    exhausted = False

    def __init__(self, falls, seen=(), affords=60, budget=None, later=None):
        """``seen``: (attack, row) of what stages of the cascade have tried in vain; ``affords``: rows that
        the budget is enough for beside the sample; ``later``: as ``falls``, of a second look."""
        self.config, self.later = SimpleNamespace(seed=3, budget=budget), later or {}
        self.falls, self.asked, self.affords, self.cut_short = falls, [], affords, []
        both = long_attacks(LINF, 10)
        cascades = {each.attack: each for each in both}
        others = [replace(each, name=f"other {each.key}", **more) for each in both for more in MORE]
        self.stages = [*cascades.values(), *others]
        entries = [(cascades[attack].name, 100 + row) for attack, row in seen]
        entries += [(each.name, 100 + row) for each in others for row in range(60)]
        self.ledger = SimpleNamespace(entries=dict.fromkeys(entries))
        self.undecided, self.ids, self.images = torch.arange(60) >= 10, [*range(100, 160)], range(60)

    def attack(self, stage, rows):
        self.asked.append((stage.attack, list(rows)))
        falls = self.later if "again" in stage.name else self.falls
        broken = [row in falls.get(stage.attack, ()) for row in rows]
        for row, gone in zip(rows, broken, strict=True):
            self.undecided[row] = self.undecided[row] and not gone
        return [SimpleNamespace(broken=gone) for gone in broken]

    def affordable(self, stage, rows):
        return rows[: self.affords]

    def summary(self, stage, entries):
        broken = sum(entry.broken for entry in entries)
        counts = {"attacked": len(entries), "correct_after": 0, "forwards": 0, "backwards": 0}
        return Stage(name=stage.name, attack=stage.attack, parameters={}, broken=broken, **counts)


LINF = Threat("linf", 0.1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stronger", range(2))
def test_where_some_of_the_sample_falls_both_attack_all(seed, stronger):
    shuffled = (torch.randperm(50, generator=torch.Generator().manual_seed(seed)) + 10).tolist()
    many, few, never = set(shuffled[:20]), {shuffled[-1]}, set(range(10))
    stages = sample_attacks(LINF, 10)
    falls = {stages[stronger].attack: many | never, stages[1 - stronger].attack: few | never}
    cascade = Scripted(falls, budget=100)
    done, missing = look(cascade, stages, 12)
    (_, sample), (_, again), (_, others), (_, last) = cascade.asked
    assert len(sample) == 12 and again == [row for row in sample if row not in falls[stages[0].attack]]
    hits = len((many | few) & set(sample))
    assert hits and (missing.sample, missing.survivors, missing.hits, missing.broken) == (12, 50, hits, 21)
    gone = falls[stages[1].attack] & set(sample)
    assert sorted(others) == [row for row in range(10, 60) if row not in {*sample} | gone]
    assert sorted(last) == [row for row in others if row not in falls[stages[0].attack]]
    assert missing.by == tuple(stage.name for stage in stages)
    assert [each.attacked for each in done] == [12 + len(others), len(again) + len(last)]
    assert done[0].correct_after == done[1].correct_after + done[1].broken
    assert missing.at_most == max(most_successes(hits, 12, 50) - 21, 0)
    assert missing.points == pytest.approx(100 * missing.at_most / 60)
    assert look(Scripted(falls, budget=100), stages, 12)[1] == missing


@pytest.mark.parametrize("seed", range(4))
def test_after_some_of_the_sample_was_broken_others_look_again(seed):
    """At another sample, with other random numbers; the last look counts."""
    shuffled = (torch.randperm(50, generator=torch.Generator().manual_seed(seed)) + 10).tolist()
    stages, falls = sample_attacks(LINF, 10), {"square": set(shuffled[:20])}
    cascade = Scripted(falls)
    done, missing = look(cascade, stages, 12)
    samples = [rows for attack, rows in cascade.asked if attack == "square"]
    assert [len(rows) for rows in samples] == [12, 38, 12] and {*samples[2]} != {*samples[0]} - {
        *shuffled[:20]
    }
    assert (missing.looks, missing.hits, missing.sample, missing.survivors) == (2, 0, 12, 30)
    assert missing.at_most == most_successes(0, 12, 30)
    first, second = done[: len(stages)], done[len(stages) :]
    assert sum(each.broken for each in first) == 20 and not any(each.broken for each in second)
    assert not {one.key for one in again(stages)} & {one.key for one in stages}
    cascade = Scripted(falls, later={"apgd": set(shuffled[20:40])})
    _, missing = look(cascade, stages, 12)
    assert missing.looks == 2 and missing.hits and missing.broken == 20
    assert look(Scripted({"square": set(range(10, 60))}), stages, 12)[1] is None  # none is left


def test_what_the_cascade_has_tried_is_not_tried_again():
    seen = [("square", row) for row in range(10, 40)] + [("apgd", row) for row in range(20, 60)]
    cascade = Scripted({"square": set(range(40, 45)), "apgd": {10, 11}}, seen, budget=100)
    _, missing = look(
        cascade, sample_attacks(LINF, 10), 50
    )  # as many as survive, so all whom something is left to do on
    assert [(name, rows) for name, rows in cascade.asked if rows] == [
        ("square", [*range(40, 60)]), ("apgd", [*range(10, 20)]),
    ]  # fmt: skip
    assert (missing.sample, missing.survivors, missing.hits, missing.at_most) == (30, 30, 7, 0)
    cascade = Scripted({"square": set(), "apgd": set()}, seen)
    _, missing = look(cascade, sample_attacks(LINF, 10), 12)
    assert (missing.sample, missing.survivors) == (8, 30)  # 12 of 50, of these 7.2 of 30
    for attack, rows in cascade.asked:
        assert not {(attack, row) for row in rows} & {*seen}
    known = [(attack, row) for attack in ("square", "apgd") for row in range(10, 60)]
    cascade = Scripted({}, known)
    _, missing = look(cascade, sample_attacks(LINF, 10), 12)
    assert (missing.sample, missing.survivors, missing.points, cascade.asked) == (
        0,
        0,
        0,
        [("square", []), ("apgd", [])],
    )


def test_where_none_of_the_sample_falls_the_others_are_left_alone():
    cascade = Scripted({"square": set(), "apgd": set()})
    _, missing = look(cascade, sample_attacks(LINF, 10), 12)
    assert [len(rows) for _, rows in cascade.asked] == [12, 12]
    assert (missing.at_most, missing.by) == (most_successes(0, 12, 50), ())
    whole = look(Scripted({"square": set(), "apgd": set()}), sample_attacks(LINF, 10), 99)[1]
    assert (whole.sample, whole.at_most, whole.points) == (50, 0, 0)
    for size, spent in ((0, False), (12, True)):
        cascade.exhausted = spent
        assert look(cascade, sample_attacks(LINF, 10), size) == ((), None)
        assert len(cascade.cut_short) == spent


def test_a_budget_that_ends_leaves_the_rest_to_the_bound():
    falls = {"square": set(range(10, 60, 2)), "apgd": set()}
    cascade = Scripted(falls, affords=5, budget=100)
    _, missing = look(cascade, sample_attacks(LINF, 10), 12)
    (_, first), _, (_, others), (_, last) = cascade.asked
    assert len(first) == 12 and len(others) == len(last) == 5
    broken = len(falls["square"] & {*first, *others})
    assert 0 < missing.hits < missing.broken == broken
    assert missing.at_most == most_successes(missing.hits, 12, 50) - broken > 0


def test_which_attacks_look_and_at_how_many():
    both = sample_attacks(LINF, 10)
    square, apgd = (one.parameters for one in both)
    assert {(one.key, one.precision) for one in both} == {("square", None), ("restarts", "float32")}
    assert square == {"queries": 5000} and apgd == {"loss": "dlr", "targets": 9, "steps": 100}
    two = sample_attacks(LINF, 2)[1].parameters
    assert (two["targets"], two["loss"]) == (1, "logit-difference")
    assert sample_attacks(Threat("l0", 5), 10) == ()
    assert [sample_attacks(LINF, k)[1].parameters["loss"] for k in (3, 4)] == ["logit-difference", "dlr"]
    for norm in ("l2", "l1"):
        *same, fmn = sample_attacks(Threat(norm, 1), 4)
        assert tuple(same) == sample_attacks(LINF, 4) and fmn.attack == "fmn-t"
        assert fmn.parameters == {"targets": 3, "steps": 100}
    assert [sample_size(None, ("pgd", "cascade"), n) for n in (1, 50, 10_000)] == [2, 14, 200]
    assert sample_size(None, ("pgd",), 50) == 0 and sample_size(7, ("pgd",), 50) == 7
    assert sample_size(0, ("cascade",), 50) == 0


def told(hits, by=(), stages=(), robust=(1,)):
    seen = Missing(sample=20, survivors=80, hits=hits, broken=3 * hits, by=by, at_most=9, points=4.5)
    cascade = SimpleNamespace(missing=seen)
    return SimpleNamespace(
        cascade=cascade, stages=stages, robust=robust, without_gradients="blind", harder="harder"
    )


@pytest.mark.parametrize(("attack", "remedy"), [("square", "blind"), ("apgd", "harder")])
def test_a_hit_is_a_reason_for_doubt(printed, attack, remedy):
    look_at = CHECKS.get("missing")
    printed(look_at(told(0)), 0, 20, 80, 4.5, 95)
    stage = SimpleNamespace(name="it", attack=attack)
    said = look_at(told(1, ("it",), (stage, SimpleNamespace(name="other", attack="square"))))
    assert isinstance(said, Doubt) and said.remedy == remedy
    printed(said.detail, 1, 20, 80, 3, 4.5, 95)
    assert isinstance(look_at(told(1, robust=())), str)  # nothing is left that could be missing
    nothing = told(0)
    nothing.cascade.missing = None
    assert look_at(nothing) is None


def test_attacks_on_all_images_leave_nothing_to_sample(judged):
    """The long attacks are stages of the cascade, with the same random numbers."""
    model, data = judged
    given = {"cascade": {"tolerance": 0}}
    result = advkit.evaluate(model, data.take(torch.arange(8)), Threat("linf", 0.004), parameters=given)
    assert result.robust_correct and result.missing.survivors == result.missing.at_most == 0
    assert [stage.attacked for stage in result.stages[-2:]] == [0, 0] and not any(
        s.left for s in result.stages
    )
    whole = result.model_copy(update={"checks": ()})
    sampled = whole.missing.model_copy(update={"survivors": 1})
    assert whole.trust != whole.model_copy(update={"missing": sampled}).trust


def test_an_evaluation_says_what_may_be_missing(judged, printed):
    model, data = judged
    short = {"pgd": {"steps": 20}}
    result = advkit.evaluate(model, data, Threat("linf", 0.012), "pgd", parameters=short, check_sample=5)
    seen, stood = result.missing, result.robust_correct + result.missing.broken
    assert (seen.sample, seen.survivors) == (5, stood)
    assert len(result.stages) == 1 + 2 * seen.looks and seen.looks == 1 + (result.stages[1].attacked > 5)
    assert advkit.evaluate(model, data, Threat("linf", 0.012), "pgd", parameters=short).missing is None
    calm = result.model_copy(update={"checks": ()})
    printed(calm.trust, seen.points, 95, seen.hits, seen.sample, seen.survivors)
    assert type(result).from_json(result.to_json()) == result
