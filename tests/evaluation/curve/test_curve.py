"""Minimum norms and the curve that they make, where both are known, and on a small network."""

import json
import math
import re
import statistics
from dataclasses import replace
from unittest.mock import MagicMock
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

import advkit
from advkit.attacks.attack import ATTACKS
from advkit.core import files, rng
from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.core.journal import Journal
from advkit.core.progress import Progress
from advkit.core.runs import RunFolder
from advkit.core.stats import clopper_pearson
from advkit.core.threat import Threat, written
from advkit.data.data import Data
from advkit.evaluation.curve import measure
from advkit.evaluation.curve.measure import DEFAULT, marks_of
from advkit.evaluation.curve.result import Mark, Median, MinimumNorm, SecurityCurve
from advkit.evaluation.curve.scale import Scale, parts_of_one
from advkit.models.card import DataFacts, ThreatFacts
from advkit.models.load import wrap
from advkit.report.figures import evaluation as figures

SHORT = {"attacks": "fmn", "parameters": {"fmn": {"steps": 60}}}


def exact(model, data, norm):
    """The nearest success of the linear model; the box is out of reach."""
    weight = model.weight.detach()
    score = data.images.flatten(1) @ weight + model.bias
    away = score.abs() / (weight.abs().sum() if norm == "linf" else weight.norm())
    return torch.where((score > 0) == (data.labels == 1), away, 0.0)


@pytest.mark.parametrize("least", [0.0, 1e-3, math.inf])
def test_where_logits_are_no_numbers_is_said(least, linear):
    """So is what no attack breaks at any distance, which is there all the same."""

    class Blind(nn.Module):
        def forward(self, x):
            logits = linear[0](x)
            near = (logits[:, 1] - logits[:, 0]).abs() < least
            clean = ((x * 255).round() - x * 255).abs().flatten(1).amax(1) < 1e-3
            return torch.where((near & ~clean)[:, None], torch.full_like(logits, torch.nan), logits)

    data = linear[1].limit(12)
    data = replace(data, images=(data.images * 255).round() / 255)
    curve = advkit.security_curve(Blind(), data, "l2", **SHORT)
    plain = advkit.security_curve(linear[0], data, "l2", **SHORT)
    assert len(curve.notes) - len(plain.notes) == (least > 0)
    assert plain.warning == "" and bool(curve.warning) == (curve.unbroken > 0) == (least == math.inf)
    assert curve.warning in str(curve)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_model_has_the_curve_of_its_closed_form(norm, linear):
    model, data = linear
    known = exact(model, data, norm)
    curve = advkit.security_curve(model, data, norm)
    norms = torch.tensor(curve.norms)
    right = known > 0
    assert (norms == 0).nonzero()[:, 0].tolist() == [3, 8] and curve.clean_correct == 38
    assert (norms[right] >= 0.9999 * known[right]).all() and (norms[right] <= 1.01 * known[right]).all()
    assert curve.median.value == pytest.approx(float(known.sort().values[19]), rel=0.01)
    assert curve.median.low < curve.median.value < curve.median.high
    for eps in known.quantile(torch.tensor([0.2, 0.5, 0.9])).tolist():
        assert abs(curve.at(eps).robust_correct - int((known > eps).sum())) <= 1
    assert [one.attacked for one in curve.attacks] == [38] * len(DEFAULT[norm])
    assert sum(one.nearest for one in curve.attacks) == 38 and curve.unbroken == 0


FINE = settings(max_examples=40)
NORMS = st.one_of(st.just(0.0), st.integers(1, 40).map(lambda n: n / 255), st.floats(0.01, 0.9), st.none())


@FINE
@given(
    found=st.lists(st.tuples(NORMS, st.integers(0, 3)), min_size=1, max_size=30),
    marks=st.sampled_from([(), (8 / 255,), (0.1, 0.3)]),
)
def test_every_figure_is_a_count_of_minimum_norms(found, marks):
    images = [MinimumNorm(id=i, label=label, minimum_norm=norm) for i, (norm, label) in enumerate(found)]
    facts = {
        "status": "complete",
        "model_hash": "",
        "card": None,
        "seed": 0,
        "attacks": (),
        "environment": {},
    }
    facts |= {"data": DataFacts(name="toy", split="test", fingerprint="", n=len(images))}
    facts |= {"forwards": 0, "backwards": 0, "seconds": 0.0}
    curve = SecurityCurve.of(
        tuple(images),
        norm="linf",
        marks=tuple(Mark(eps=eps, said="") for eps in marks),
        names=["a", "b", "c"],
        eps=[0.0371],
        **facts,
    )
    norms = [math.inf if norm is None else norm for norm, _ in found]
    right = sorted(norm for norm in norms if norm > 0)
    assert curve.norms == norms and (curve.n, curve.clean_correct) == (len(norms), len(right))
    assert curve.unbroken == norms.count(math.inf) and curve.clean_accuracy == len(right) / len(norms)
    assert {0.0371, *marks} <= {point.eps for point in curve.points}
    for point in (*curve.points, curve.at(0.0), *(curve.at(norm) for norm in right[:3] if norm < math.inf)):
        assert point.robust_correct == sum(norm > point.eps for norm in norms)
        assert point.robust_accuracy == point.robust_correct / len(norms)
        assert point.interval == clopper_pearson(point.robust_correct, len(norms))
    assert curve.clean_interval == clopper_pearson(len(right), len(norms))
    half = statistics.median_low(right) if right else 0.0
    assert curve.half == (half if half < math.inf else None)
    assert curve.median == Median.of(norms)
    assert curve.median.value == (value if (value := statistics.median_low(norms)) < math.inf else None)
    scale = [point.eps for point in curve.points if point.eps not in {0.0371, *marks}] or [curve.class_eps]
    near = min(scale, key=lambda eps: abs(eps - (curve.half or 0)))
    assert curve.class_eps == (marks[0] if marks else pytest.approx(near))
    assert [row.label for row in curve.classes] == sorted({label for _, label in found})
    for row in curve.classes:
        mine = [norm for norm, (_, label) in zip(norms, found, strict=True) if label == row.label]
        left = sum(norm > curve.class_eps for norm in mine)
        assert (row.n, row.robust_correct, row.clean_correct) == (len(mine), left, sum(n > 0 for n in mine))
        assert row.interval == clopper_pearson(left, len(mine)) and row.median == Median.of(mine)
        assert row.name == ["a", "b", "c", "3"][row.label]
    assert list(curve.curve.eps) == sorted({0.0, *(norm for norm in norms if norm < math.inf)})
    assert list(curve.curve.robust_correct) == [sum(norm > eps for norm in norms) for eps in curve.curve.eps]
    assert curve.parts == (255 if marks == (8 / 255,) else 1)
    assert (" / 255 (" in str(curve)) == (curve.parts == 255 and curve.median.value is not None)
    low, high = (value and f"{value * curve.parts:.3g}" for value in (curve.median.low, curve.median.high))
    assert curve.text(curve.median).endswith(f"[{low or 0}, {high or '-'}]")
    assert SecurityCurve.model_validate(json.loads(json.dumps(curve.as_values()))) == curve
    more = curve.asked([0.011, 0.0371])
    assert [point for point in more.points if point not in curve.points] == [curve.at(0.011)]
    assert [point.eps for point in more.points] == sorted(point.eps for point in more.points)


@FINE
@given(
    norm=st.sampled_from(["linf", "l2", "l0"]),
    norms=st.lists(st.floats(1e-3, 0.99) | st.sampled_from([0.06, 0.3, 0.6]), min_size=1, max_size=30),
    marks=st.sampled_from([(), (8 / 255,), (0.3,)]),
)
def test_a_scale_is_of_few_round_sizes_until_the_curve_is_nearly_down(norm, norms, marks):
    norms = [max(1.0, round(100 * value)) for value in norms] if norm == "l0" else norms
    eps = Scale.of(norm, norms, marks).eps
    parts = 255 if norm == "linf" and marks == (8 / 255,) else 1
    step = eps[0] * parts
    whole = norm == "l0" or parts > 1
    top = sorted(norms)[len(norms) * 9 // 10]
    digit = f"{step:.9e}".partition("e")[0].rstrip("0").rstrip(".")
    finer = step / {"1": 2, "2": 2, "5": 2.5}[digit]
    assert top * parts > 6 * finer * (1 + 1e-8) or (whole and finer < 1)
    assert [size * parts for size in eps] == pytest.approx([step * (n + 1) for n in range(len(eps))])
    assert eps[-1] >= top * (1 - 1e-6) and len(eps) <= 6
    assert len(eps) == 1 or eps[-2] < top
    assert len(eps) > 2 or (whole and step <= 2)
    assert not whole or all(size * parts == pytest.approx(round(size * parts)) for size in eps)


@pytest.fixture(scope="module")
def network():
    """(model, data): two convolutions, 8x8 images, labelled by the model itself."""
    with rng.scope("cpu", 0, "toy"):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
        ).eval()
    x = rng.uniform(torch.arange(24), (1, 8, 8))
    with torch.no_grad():
        model[3].bias -= model(x).mean(0)
        labels = model(x).argmax(1)
    return model, Data("toy", "test", x, labels, tuple("abcde"), torch.arange(24))


def test_lies_no_higher_than_an_attack_with_a_budget_finds(network):
    model, data = network
    curve = advkit.security_curve(model, data, "linf")
    for eps in (curve.half / 2, curve.half, 1.3 * curve.half):
        pgd = advkit.evaluate(model, data, Threat("linf", eps), "pgd", precision="float32")
        assert 0 < pgd.robust_correct < 24
        assert curve.at(eps).robust_correct <= pgd.robust_correct + 1


def test_the_nearest_of_all_attacks_counts_and_is_an_image(network):
    model, data = network
    both = {"fmn": {"steps": 30}, "fab-t": {"steps": 10, "targets": 2}}
    curve = advkit.security_curve(model, data, "l2", "fmn,fab-t", parameters=both, keep=True)
    each = [
        advkit.security_curve(model, data, "l2", name, parameters={name: both[name]}).norms for name in both
    ]
    assert curve.norms == torch.tensor(each, dtype=torch.float64).amin(0).tolist()
    assert min(one.nearest for one in curve.attacks) > 0
    with torch.no_grad():
        assert (model(curve.adversarial).argmax(1) != data.labels).all()
    away = Threat.whole("l2", 64).distance(curve.adversarial, data.images)
    assert away.tolist() == pytest.approx(curve.norms, rel=1e-6)


def test_batch_size_and_subset_change_nothing(network):
    model, data = network
    whole = advkit.security_curve(model, data, "linf", batch_size=100, **SHORT)
    assert advkit.security_curve(model, data, "linf", batch_size=5, **SHORT).norms == pytest.approx(
        whole.norms, rel=1e-3
    )
    part = advkit.security_curve(model, data.take(torch.tensor([5, 21])), "linf", **SHORT)
    assert part.norms == pytest.approx([whole.norms[5], whole.norms[21]], rel=1e-3)


@pytest.mark.parametrize("whole_line", [True, False])
def test_goes_on_after_an_interruption_and_ends_with_the_same_file(
    network, tmp_path, monkeypatch, whole_line
):
    model, data = network
    plan = {"fmn": {"steps": 20}, "fab-t": {"steps": 5, "targets": 2}}

    class Telling(Progress):
        def say(self, message):
            said.append(message)

    def run(name):
        said.clear()
        with RunFolder.open("curve", "toy", StrictModel(), tmp_path / name) as folder:
            found = advkit.security_curve(
                model, data, "linf", "fmn,fab-t", parameters=plan, run=folder, progress=Telling()
            )
            folder.finish(found.as_values())

    said = []
    run("whole")
    assert not said
    add, told = Journal.add, []

    def adding(self, line):
        told.append(line)
        if len(told) == 31:  # amid the second attack
            if not whole_line:
                with self.path.open("a") as file:
                    file.write(line[:30])
            raise KeyboardInterrupt
        add(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", adding)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    run("stopped")
    # An image is written before its line, so that of an earlier line may have been replaced: it is redone.
    assert [one.split(":")[0] for one in said if "verdicts.jsonl" not in one] == ["fmn", "fab-t"]
    for name in ("verdicts.jsonl", "adversarial.bin"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, two = (files.read_json(tmp_path / name / "result.json") for name in ("whole", "stopped"))
    assert one.pop("seconds") > 0 < two.pop("seconds")
    assert one == two


def test_an_image_on_which_nothing_is_found_stands_at_every_eps(linear):
    """Its gradient is zero, so that no attack knows where to go."""
    model, data = linear

    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner((x * 50).round() / 50)

    with torch.no_grad():
        labels = Rounded()(data.images).argmax(1)
    curve = advkit.security_curve(Rounded(), (data.images, labels), "linf", **SHORT)
    assert curve.unbroken == 40 and curve.at(1.0).robust_correct == 40
    assert curve.median.value is None and curve.half is None and math.isinf(curve.norms[0])
    assert SecurityCurve.model_validate(json.loads(json.dumps(curve.as_values()))) == curve
    assert curve.text(curve.median).startswith("-")
    charted(curve)


@pytest.mark.parametrize(
    ("norm", "usual"),
    [
        ("linf", {"fmn": {"steps": 300}, "fmn-t": {"targets": 3}}),
        ("l2", {"fmn-t": {"targets": 9, "steps": 100}}),
        ("l1", {"fmn-t": {"targets": 9, "steps": 100}}),
        ("l0", {"sigma-zero": {}, "fmn": {"steps": 1000}}),
    ],
)
def test_the_usual_attacks_are_those_of_the_benchmarks(norm, usual, linear):
    curve = advkit.security_curve(*linear, norm, n=1)
    assert curve.seed == 0 and [one.attack for one in curve.attacks] == [*usual]
    assert all(one.parameters.items() >= usual[one.attack].items() for one in curve.attacks)


def charted(curve):
    for draw in (figures.security_curve, figures.norms, figures.norms_by_class):
        assert ElementTree.fromstring(draw(curve)).get("role") == "img"


def test_progress_tells_the_median_so_far(linear, monkeypatch):
    monkeypatch.setattr(measure, "GROUP", 10)
    told = MagicMock(spec=Progress)
    norms = advkit.security_curve(*linear, "linf", progress=told, **SHORT).norms
    steps = [call.kwargs["median distance"] for call in told.task().__enter__().advance.call_args_list]
    norms = [norm for norm in norms if norm > 0]
    assert steps == [statistics.median_low(norms[:count]) for count in (10, 20, 30, 38)]


def test_whole_norms(linear):
    curve = advkit.security_curve(*linear, "l0", **SHORT)
    assert all(norm == int(norm) for norm in curve.norms) and curve.marks == ()
    assert all(point.eps == int(point.eps) for point in curve.points)
    charted(curve)
    plan = {"sigma-zero": {"steps": 40}, "fmn": {"steps": 60}}
    alone = [advkit.security_curve(*linear, "l0", name, parameters={name: plan[name]}).norms for name in plan]
    both = advkit.security_curve(*linear, "l0", tuple(plan), parameters=plan)
    pairs = [pair for pair in zip(*alone, strict=True) if max(pair) > 0]
    assert any(one == other for one, other in pairs)
    assert both.attacks[0].nearest == sum(one <= other for one, other in pairs)  # of equal ones the first


def test_reads_back(linear, tmp_path):
    curve = advkit.security_curve(*linear, **SHORT)
    assert curve.norm == "linf"  # default of the data
    (tmp_path / "result.json").write_text(json.dumps(curve.as_values()))
    assert SecurityCurve.load(tmp_path) == curve
    (one,) = curve.attacks
    assert curve.forwards - 40 == one.forwards == sum(image.forwards for image in curve.images) >= 38 * 60
    assert curve.backwards == one.backwards == sum(image.backwards for image in curve.images) == 38 * 60
    assert (one.attacked, one.found, one.nearest, one.parameters["steps"]) == (38, 38, 38, 60)
    assert one.median == statistics.median_low(norm for norm in curve.norms if norm > 0)
    part = advkit.security_curve(*linear, n=20, **SHORT)
    assert (curve.status, part.status, part.n) == ("complete", "partial", 20)
    assert part.norms == pytest.approx(curve.norms[:20], rel=1e-3)


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"attacks": "fmm"}, ConfigError, "'fmn'"),
        ({"attacks": "pgd"}, ConfigError, "pgd.*fmn"),
        ({"attacks": "cascade"}, ConfigError, "fmn"),
        ({"attacks": "ddn"}, ConfigError, "l2.*linf"),
        ({"attacks": "fmn,fmn"}, ConfigError, "fmn"),
        ({"parameters": {"fmn": {"step": 3}}}, ConfigError, "'step'"),
        ({"parameters": {"ddn": {}}}, ConfigError, "ddn"),
        ({"eps": [8.0]}, ConfigError, "write 8/255"),
        ({"eps": [-0.1]}, ConfigError, "0"),
        ({"norm": "l3"}, ConfigError, "'l3'"),
    ],
)
def test_faults_of_the_caller(wrong, kind, said, linear):
    model, data = linear
    with pytest.raises(kind, match=said):
        advkit.security_curve(model, data, **{"norm": "linf", **wrong})


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_who_asks_for_an_attack_within_a_budget_is_told_all_others(norm, linear):
    wanted = {"pgd"} | {e.name for e in ATTACKS if e.thing.minimal and norm in e.thing.norms}
    with pytest.raises(ConfigError) as caught:
        advkit.security_curve(*linear, norm=norm, attacks="pgd")
    assert {e.name for e in ATTACKS} & set(re.findall(r"[\w-]+", str(caught.value))) == wanted


def test_faults_of_the_data(linear):
    model, data = linear
    with pytest.raises(ModelError, match="40"):
        with torch.no_grad():
            wrong = 1 - model(data.images).argmax(1)
        advkit.security_curve(model, (data.images, wrong), "linf")
    with pytest.raises(DataError, match="7"):
        advkit.security_curve(model, (data.images, torch.full((40,), 7)), "linf")
    with pytest.raises(ConfigError, match="--norm"):
        advkit.security_curve(model, (data.images, data.labels))


@FINE
@given(st.lists(st.floats(0, 1) | st.just(math.inf), min_size=1, max_size=40))
@example([0.3])
@example([0.1] * 6)
@example([math.inf] * 9)
@example([0.1] * 5 + [math.inf] * 20)
def test_medians_of_the_found_and_of_the_infinite(norms):
    """The interval's ends are those ranks beyond which a median lies with less than 2.5 % each."""
    ordered, n = sorted(norms), len(norms)
    beyond = sum(binom.cdf(rank, n, 0.5) <= 0.025 for rank in range(n // 2))
    finite = [norm for norm in norms if norm < math.inf]
    low = min(ordered[beyond - 1], max(finite, default=0.0)) if beyond else 0.0
    high = ordered[n - beyond] if beyond else math.inf
    middle = ordered[(n - 1) // 2]
    assert Median.of(norms) == Median(
        value=middle if middle < math.inf else None, low=low, high=high if high < math.inf else None
    )


@pytest.mark.parametrize(
    ("norm", "hardened", "expected"),
    [
        ("linf", ("linf", 0.1), [(0.1, "hardened for"), (0.02, "default of toy")]),
        ("linf", ("linf", 0.02), [(0.02, "hardened for")]),
        ("linf", ("l2", 0.1), [(0.02, "default of toy")]),
        ("l2", ("l2", 0.1), [(0.1, "hardened for")]),
        ("l1", None, []),
    ],
)
def test_usual_threat_models_are_marked_that_of_the_model_first(norm, hardened, expected, linear):
    model, data = wrap(linear[0], shape=(1, 4, 4)), linear[1]
    threat = hardened and ThreatFacts(norm=hardened[0], eps=hardened[1])
    model.card = model.card.model_copy(update={"threat": threat})
    assert [(mark.eps, mark.said) for mark in marks_of(model, data, norm)] == expected


def test_sizes_are_written_as_people_do():
    assert [written(k / 255, "linf") for k in (2, 8, 51)] == ["2/255", "8/255", "0.2"]
    assert written(8 / 255, "l2") == "0.03137" and written(1.5, "l2") == "1.5" and written(1.0, "linf") == "1"
    assert [
        parts_of_one(*case) for case in (("linf", [0.1, 8 / 255]), ("l2", [8 / 255]), ("linf", [0.2]))
    ] == [*(255, 1, 1)]
    assert Scale.of("l2", [], [0.5]).eps[-1] == 0.5 and Scale.of("linf", [], []).eps[-1] == 1.0
