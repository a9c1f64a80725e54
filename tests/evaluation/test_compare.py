"""Comparing models image by image."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

import advkit
from advkit.commands.attack import run as attack
from advkit.commands.compare import run as command
from advkit.core import files
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError
from advkit.core.files import json_text
from advkit.evaluation.comparison.compare import Source, compare
from advkit.evaluation.comparison.result import MEASURES, ComparisonResult, Difference
from advkit.evaluation.comparison.settings import Comparison
from advkit.evaluation.result import EvaluationResult
from advkit.models.card import ThreatFacts
from advkit.models.checkpoint import save_model
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.verify.certification.result import CertificationResult

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0" / "finished"
STATUSES = ("misclassified", "broken", "robust", "certified")


def changed(result, **values):
    """The result with other values, counted anew."""
    whole = result.as_values() | json.loads(json_text(values))
    found = [verdict["status"] for verdict in whole["verdicts"]]
    n = len(found)
    counts = {
        "clean": n - found.count("misclassified"),
        "robust": sum(s in MEASURES["robust"] for s in found),
    }
    counts["certified"] = found.count("certified")
    for name, count in counts.items():
        if whole.get(f"{name}_correct") is not None:
            whole |= {f"{name}_correct": count, f"{name}_accuracy": count / n}
    for computed in ("certified_accuracy", *(() if "clean_accuracy" in whole else ("clean_accuracy",))):
        if isinstance(result, EvaluationResult):
            whole.pop(computed, None)
    return type(result).from_json(json_text(whole | {"n": n}))


def released(drawn, n=60, certified=True, name="toy", **values):
    """A result whose verdicts are drawn."""
    golden = EvaluationResult.load(GOLDEN / "attack")
    draw = np.random.default_rng(drawn)
    known = STATUSES if certified else STATUSES[:3]
    stage = golden.stages[-1].name
    verdicts = []
    for id in range(n):
        status = str(draw.choice(known))
        verdicts.append(
            {"id": 3 * id, "label": id % 4, "status": status, "attack": stage if status == "broken" else None}
        )
    data = golden.data.model_dump() | {"name": name, "n": n, "fingerprint": "f"}
    more = {"certified_correct": 0 if certified else None, "certified_interval": None}
    return changed(golden, verdicts=verdicts, data=data, **more, **values)


def test_counts_are_those_of_the_verdicts():
    one, two = released(1), released(2)
    found = compare(one, two)
    assert (found.n, found.decisive, found.measures) == (60, "robust", ("clean", "robust", "certified"))
    assert [each.measure for each in found.differences] == ["clean", "robust", "certified"]
    for each in found.differences:
        good = [[v.status in MEASURES[each.measure] for v in result.verdicts] for result in (one, two)]
        cells = list(zip(*good, strict=True))
        assert each.both == cells.count((True, True)) and each.neither == cells.count((False, False))
        assert each.only_first == cells.count((True, False))
        assert each.only_second == cells.count((False, True))
        assert each.difference == pytest.approx((sum(good[1]) - sum(good[0])) / 60)
        both = each.only_first + each.only_second
        assert each.p_value == pytest.approx(binomtest(each.only_first, both).pvalue)
        assert each.interval.low < each.difference < each.interval.high
        assert found.models[0].correct[each.measure] == sum(good[0])
    robust = [[v.status in MEASURES["robust"] for v in result.verdicts] for result in (one, two)]
    lost = [[3 * i for i in range(60) if not robust[m][i] and robust[1 - m][i]] for m in (0, 1)]
    assert [[image.id for image in found.lost(place)] for place in (0, 1)] == lost
    for row in found.classes:
        own = [i for i in range(60) if i % 4 == row.label]
        assert row.n == 15 and row.correct == tuple(sum(robust[m][i] for i in own) for m in (0, 1))
    assert {row.name: row.broken for row in found.attacks if any(row.broken)} == {
        one.stages[-1].name: tuple(
            sum(v.status == "broken" for v in result.verdicts) for result in (one, two)
        )
    }
    again = ComparisonResult.from_json(found.to_json())
    assert again == found and found.summary() in str(found) and found.to_dict()["n"] == 60
    assert "<table>" in found._repr_html_()


@pytest.mark.parametrize(("gone", "come"), [(0, 5), (0, 6), (6, 0)])
def test_a_difference_is_significant_by_the_exact_test(gone, come):
    first = [[True]] * gone + [[False]] * (60 - gone)
    second = [[False]] * gone + [[True]] * come + [[False]] * (60 - gone - come)
    found = Difference.of(("one", "two"), "robust", first, second)
    assert found.significant == (max(gone, come) == 6) == (found.p_value <= 0.05)
    assert "McNemar" in found.text and "McNemar" not in found.model_copy(update={"measure": "corrupted"}).text
    assert all(f"{100 * end:+.1f}" in found.text for end in found.interval)
    assert [found.model_copy(update={"p_value": p}).significant for p in (0.05, 0.0501)] == [True, False]
    if found.significant:
        assert (found.text.index("two") < found.text.index("one")) == (come > gone)
    assert found.only_first == gone and found.only_second == come


def test_each_model_is_compared_with_the_first():
    three = [released(seed, certified=False) for seed in (1, 2, 3)]
    found = compare(*three)
    names = [model.name for model in found.models]
    assert len(set(names)) == 3 and found.measures == ("clean", "robust")
    assert [(one.first, one.second) for one in found.deciding] == [(names[0], name) for name in names[1:]]
    alone = compare(three[0], three[2]).deciding[0]
    assert found.deciding[1].p_value == alone.p_value and found.deciding[1].interval == alone.interval


def test_parts_of_the_same_data_are_compared_where_they_overlap():
    whole = released(1)
    few = changed(
        released(2),
        verdicts=[v.model_dump() for v in released(2).verdicts[10:30]],
        data=whole.data.model_dump() | {"n": 20, "fingerprint": "other"},
    )
    found = compare(whole, few)
    assert found.n == 20 and [image.id for image in found.images] == [3 * i for i in range(10, 30)]
    assert len(found.notes) == 1 + len(compare(whole, released(2)).notes)


GOOD = released(1)
STAGES = [stage.model_dump() for stage in GOOD.stages]
ASKED = {"access": "scores", "max_queries": 9, "max_total_queries": None, "total": 9, "answered": 9}
ASKED |= {"mean": 1, "median": 1, "stopped": 0}
BY_LABEL = [v.model_dump() | {"label": v.label + 1} for v in GOOD.verdicts]


@pytest.mark.parametrize(
    "values",
    [
        {"data": GOOD.data.model_dump() | {"name": "mnist"}},
        {"data": GOOD.data.model_dump() | {"split": "train"}},
        {"data": GOOD.data.model_dump() | {"fingerprint": "another"}},
        {"threat": {"norm": GOOD.threat.norm, "eps": GOOD.threat.eps * 1.01}},
        {"threat": {"norm": "l1", "eps": GOOD.threat.eps}},
        {"eight_bit": not GOOD.eight_bit},
        {"surrogate_hash": "abc"},
        {"queries": ASKED},
        {"stages": STAGES[:1]},
        {"stages": [*STAGES[:-1], STAGES[-1] | {"parameters": {"queries": 1}}]},
        {"verdicts": BY_LABEL},
        {
            "verdicts": [v.model_dump() | {"id": v.id + 1} for v in GOOD.verdicts],
            "data": GOOD.data.model_dump() | {"fingerprint": "another"},
        },
    ],
    ids=lambda values: ",".join(values),
)
def test_what_cannot_be_compared_is_refused(values):
    other = changed(GOOD, **values)
    for pair in ((GOOD, other), (other, GOOD)):
        with pytest.raises(ConfigError) as fault:
            compare(*pair)
        assert fault.value.code == "not-comparable"


def test_the_check_on_a_sample_needs_survivors():
    """A model of which nothing survives is compared with one whose survivors are attacked again."""
    sampled = [*STAGES, STAGES[-1] | {"name": "sample/square"}]
    found = compare(GOOD, changed(GOOD, stages=sampled)).differences
    assert found and all(one.difference == 0 for one in found)


def test_other_seeds_surrogates_and_doubts_are_said():
    usual = compare(GOOD, released(2))
    assert len(compare(GOOD, released(2, seed=GOOD.seed + 1)).notes) == len(usual.notes) + 1
    transfers = [changed(GOOD, surrogate_hash=other) for other in "ab"]
    assert len(compare(*transfers).notes) == len(usual.notes) + 1
    doubt = [check.model_dump() | {"verdict": "doubt"} for check in GOOD.checks]
    found = compare(GOOD, released(2, checks=doubt))
    assert usual.trusted and not found.trusted and len(found.notes) == len(usual.notes) + 1
    assert [model.trusted for model in found.models] == [True, False]


def test_proofs_are_compared_with_proofs_and_attacks():
    proofs = CertificationResult.load(GOLDEN / "certify")
    found = compare(proofs, proofs)
    assert found.measures == ("clean", "certified") and found.decisive == "certified"
    assert found.deciding[0].p_value == 1 and found.deciding[0].difference == 0 and found.trusted
    assert found.models[0].correct == {"clean": proofs.clean_correct, "certified": proofs.certified_correct}


def test_attacks_are_compared_with_proofs_by_what_both_measure():
    proofs, facts = CertificationResult.load(GOLDEN / "certify"), ("data", "threat")
    shown = {"misclassified": "misclassified", "certified": "certified"}
    verdicts = [
        {
            "id": v.id,
            "label": v.label,
            "status": shown.get(v.status, "undecided"),
            "margin": None,
            "method": None,
        }
        for v in GOOD.verdicts
    ]
    proofs = changed(proofs, verdicts=verdicts, **{fact: getattr(GOOD, fact).model_dump() for fact in facts})
    for pair in ((GOOD, proofs), (proofs, GOOD)):
        found = compare(*pair)
        assert found.measures == ("clean", "certified") and found.deciding[0].difference == 0
        assert {model.trusted for model in found.models} == {GOOD.trusted, None}


@pytest.mark.parametrize(
    ("one", "two", "weaker"),
    [
        *((STAGES[:1], STAGES, "one"), (STAGES, STAGES[:1], "two")),
        *((STAGES[:1], STAGES[1:], None), (STAGES, STAGES[::-1], None)),
    ],
)
def test_a_refusal_names_the_result_whose_attacks_are_weaker(one, two, weaker):
    pair = [
        Source(changed(GOOD, stages=stages), name=f"<{name}>")
        for name, stages in (("one", one), ("two", two))
    ]
    with pytest.raises(ConfigError) as fault:
        compare(*pair)
    said = str(fault.value)
    assert [said.count(f"<{name}>") for name in ("one", "two")] == [
        1 + (weaker == "one"),
        1 + (weaker == "two"),
    ]


def test_models_are_told_apart_by_name_place_or_number():
    def named(*given):
        return [
            model.name
            for model in compare(*(Source(GOOD, path and Path(path), n) for path, n in given)).models
        ]

    assert named(("a/r", "net"), ("b/s", "net")) == ["net (r)", "net (s)"]
    assert named(("a/r", "net"), ("b/r", "net"), ("c/t", "x")) == ["net (r) 1", "net (r) 2", "x 3"]
    assert named(("a/r", "net"), (None, "")) == ["net", "(model 2)"]
    both = compare(Source(GOOD, Path("a/r"), "net"), GOOD).models
    assert [model.source for model in both] == [str(Path("a/r")), ""]


def test_only_verdicts_can_be_compared():
    for name, model in (("a.pt", True), ("a.json", False), ("folder", False)):
        Path("folder").mkdir(exist_ok=True)
        Path(name).exists() or Path(name).write_text("{}", encoding="utf-8")
        with pytest.raises(DataError) as fault:
            Source.open(name)
        assert ("--model" in str(fault.value)) == model  # it may be meant
    with pytest.raises(ConfigError):
        compare(GOOD)
    with pytest.raises(DataError):
        Source.open(GOLDEN / "finetune")
    with pytest.raises(ConfigError) as fault:
        compare(GOOD, 7)
    assert fault.value.code == "run-not-found"
    assert advkit.compare is compare


@pytest.fixture
def two(judged):
    model, data = judged
    save_model(model, "a.pt")
    other = Model(copy.deepcopy(model.network), model.card)
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.add_(0.02 * torch.sign(torch.sin(1000 * parameter)))
    save_model(other, "b.pt")
    np.savez("toy.npz", x=data.images.numpy(), y=data.labels.numpy())
    return Comparison(model=("a.pt", "b.pt"), data="npz:toy.npz", norm="linf", eps=0.03, attack=("fgsm",))


def test_models_are_measured_with_the_same_settings_and_once(two, monkeypatch):
    outcome = command(two, Context(out=Path("run")))
    found = outcome.stored
    assert isinstance(found, ComparisonResult) and [m.name for m in found.models] == ["a.pt", "b.pt"]
    measured = [EvaluationResult.load(f"run/{place}-{name}") for place, name in ((1, "a.pt"), (2, "b.pt"))]
    assert compare(*measured).deciding[0].p_value == found.deciding[0].p_value
    assert outcome.result == files.read_json(Path("run/result.json"))
    written = Path("run/1-a.pt/result.json").stat().st_mtime_ns
    Path("run/result.json").unlink()
    Path("run/2-b.pt/result.json").unlink()
    assert command(two, Context(out=Path("run"))).stored == found
    assert Path("run/1-a.pt/result.json").stat().st_mtime_ns == written
    runs = Comparison(runs=("run/1-a.pt", "run/2-b.pt"))
    again = command(runs, Context(out=Path("again"))).stored
    assert again.differences == found.differences and again.images == found.images


def test_all_are_measured_under_the_threat_model_of_the_first(two):
    """Each card names another, and the data set none."""
    for name, eps in (("a.pt", 0.03), ("b.pt", 0.2)):
        model = load_model(name)
        card = model.card.model_copy(update={"threat": ThreatFacts(norm="linf", eps=eps)})
        save_model(Model(model.network, card), f"own-{name}")
    asked = Comparison(model=("own-a.pt", "own-b.pt"), data="npz:toy.npz", attack=("fgsm",))
    found = command(asked, Context(out=Path("run"))).stored
    assert (found.threat.norm, found.threat.eps) == ("linf", 0.03)
    wanted = command(two, Context(out=Path("same"))).stored
    assert [m.correct for m in found.models] == [m.correct for m in wanted.models]


@pytest.mark.parametrize(
    "values",
    [{"budget": 1}, {"parameters": {"cascade": {"tolerance": 0}}}, {"certify": "complete"}],
    ids=str,
)
def test_runs_with_another_budget_tolerance_or_verification_are_refused(two, values):
    few = {"attack": ("cascade",), "n": 4, "eps": 0.001}
    asked = {"data": "npz:toy.npz", "norm": "linf"}
    for place, more in (("a", {}), ("b", values), ("c", {"seed": 1})):
        attack(Comparison(**asked | few | more).evaluation("a.pt"), Context(out=Path(place)))
    with pytest.raises(ConfigError) as fault:
        compare("a", "b")
    assert fault.value.code == "not-comparable"
    assert compare("a", "c").n == 4


@pytest.mark.parametrize(
    "asked",
    [Comparison(), Comparison(runs=("1",)), Comparison(model=("a.pt",)), Comparison(runs=("1", "2"), n=3)],
    ids=str,
)
def test_a_comparison_needs_two(asked):
    with pytest.raises(ConfigError):
        command(asked, Context())
    assert not Path("runs").exists()


def test_a_refused_comparison_leaves_no_folder():
    Path("a.json").write_text(GOOD.to_json(), "utf-8")
    Path("b.json").write_text(changed(GOOD, stages=STAGES[:1]).to_json(), "utf-8")
    with pytest.raises(ConfigError):
        command(Comparison(runs=("a.json", "b.json")), Context())
    assert not Path("runs").exists()
