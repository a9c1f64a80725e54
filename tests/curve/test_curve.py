"""Minimum norms and the curve that they make, where both are known, and on a small network."""

import json
import math

import pytest
import torch
from torch import nn

import advkit
from advkit import rng
from advkit.config import StrictModel
from advkit.curve.measure import DEFAULT
from advkit.curve.pictures import write_curve, write_norms
from advkit.curve.result import Median, SecurityCurve
from advkit.curve.scale import Scale, parts_of_one, written
from advkit.data.data import Data
from advkit.errors import ConfigError, DataError, ModelError
from advkit.journal import Journal
from advkit.runs import RunFolder
from advkit.threat import Threat

SHORT = {"attacks": "fmn", "parameters": {"fmn": {"steps": 60}}}


def exact(model, data, norm):
    """The nearest success of the linear model; the box is out of reach."""
    weight = model.weight.detach()
    score = data.images.flatten(1) @ weight + model.bias
    away = score.abs() / (weight.abs().sum() if norm == "linf" else weight.norm())
    return torch.where((score > 0) == (data.labels == 1), away, 0.0)


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


def test_the_curve_counts_the_norms_above_eps_and_never_rises(linear):
    curve = advkit.security_curve(*linear, "linf", eps=["0.066/2"], **SHORT)
    norms = torch.tensor(curve.norms, dtype=torch.float64)
    assert {0.033, 0.02} <= {point.eps for point in curve.points}
    for point in (*curve.points, curve.at(0.0)):
        assert point.robust_correct == int((norms > point.eps).sum())
        assert point.interval.low <= point.robust_accuracy <= point.interval.high
    steps = curve.curve
    assert steps.eps[0] == 0 and steps.robust_correct[0] == curve.clean_correct == 38
    assert list(steps.eps) == sorted(steps.eps) and steps.robust_correct[-1] == 0
    assert list(steps.robust_correct) == [int((norms > eps).sum()) for eps in steps.eps]
    assert curve.class_eps == 0.02 and sum(row.n for row in curve.classes) == 40
    assert sum(row.robust_correct for row in curve.classes) == curve.at(0.02).robust_correct
    assert [row.name for row in curve.classes] == ["below", "above"]


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

    def run(name):
        with RunFolder.open("curve", "toy", StrictModel(), tmp_path / name) as folder:
            found = advkit.security_curve(model, data, "linf", "fmn,fab-t", parameters=plan, run=folder)
            folder.finish(found.as_values())

    run("whole")
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
    for name in ("verdicts.jsonl", "adversarial.bin"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "stopped"))
    assert one.pop("seconds") > 0 < two.pop("seconds")
    assert one == two


def test_an_image_on_which_nothing_is_found_stands_at_every_eps(linear, tmp_path):
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
    assert "nothing was found for half" in str(curve)
    drawn(curve, tmp_path)


def drawn(curve, folder):
    for name, write in (("curve.png", write_curve), ("norms.png", write_norms)):
        write(folder / name, curve)
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"


def test_whole_norms(linear, tmp_path):
    curve = advkit.security_curve(*linear, "l0", **SHORT)
    assert all(norm == int(norm) for norm in curve.norms) and curve.marks == ()
    assert all(point.eps == int(point.eps) for point in curve.points)
    drawn(curve, tmp_path)


def test_reads_back_and_refuses_what_is_newer(linear, tmp_path):
    curve = advkit.security_curve(*linear, **SHORT)
    assert curve.norm == "linf"  # customary on the data
    file = tmp_path / "result.json"
    file.write_text(json.dumps(curve.as_values()))
    assert SecurityCurve.load(tmp_path) == curve
    more = curve.asked([0.011, 0.02])
    assert [p for p in more.points if p not in curve.points] == [curve.at(0.011)]
    file.write_text(json.dumps({**curve.as_values(), "version": 99}))
    with pytest.raises(DataError, match="newer advkit"):
        SecurityCurve.load(file)
    file.write_text("{}")
    with pytest.raises(DataError, match="no result of advkit curve"):
        SecurityCurve.load(file)
    with pytest.raises(DataError, match="there is no result"):
        SecurityCurve.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"attacks": "fmm"}, ConfigError, "no attack called 'fmm' .did you mean 'fmn'"),
        ({"attacks": "pgd"}, ConfigError, "pgd looks for any success within a budget.* choose among .*fmn"),
        ({"attacks": "cascade"}, ConfigError, "looks for any success within a budget"),
        ({"attacks": "ddn"}, ConfigError, "DDN works in l2, not in linf"),
        ({"attacks": "fmn,fmn"}, ConfigError, "named twice"),
        ({"parameters": {"fmn": {"step": 3}}}, ConfigError, "unknown key 'step'"),
        ({"parameters": {"ddn": {}}}, ConfigError, "parameters are given for ddn"),
        ({"eps": [8.0]}, ConfigError, "write 8/255"),
        ({"eps": [-0.1]}, ConfigError, "greater than 0"),
        ({"norm": "l3"}, ConfigError, "there is no norm 'l3'"),
    ],
)
def test_faults_of_the_caller(wrong, kind, said, linear):
    model, data = linear
    with pytest.raises(kind, match=said):
        advkit.security_curve(model, data, **{"norm": "linf", **wrong})


def test_faults_of_the_data(linear):
    model, data = linear
    with pytest.raises(ModelError, match="misclassifies all 40 images"):
        with torch.no_grad():
            wrong = 1 - model(data.images).argmax(1)
        advkit.security_curve(model, (data.images, wrong), "linf")
    with pytest.raises(DataError, match="has label 7"):
        advkit.security_curve(model, (data.images, torch.full((40,), 7)), "linf")
    with pytest.raises(ConfigError, match="no customary threat model; give --norm"):
        advkit.security_curve(model, (data.images, data.labels))


def test_medians_of_the_found_and_of_the_infinite():
    assert Median.of([0.3]).model_dump() == {"value": 0.3, "low": 0.0, "high": None}
    hundred = Median.of([i / 100 for i in range(100)])
    assert (hundred.value, hundred.low, hundred.high) == (0.49, 0.39, 0.6)  # ranks 40 and 61
    far = Median.of([0.1] * 5 + [math.inf] * 20)
    assert far.value is None and far.high is None and far.low == 0.1


def test_round_sizes():
    assert Scale.of("linf", [0.01 * i for i in range(1, 35)], [0.3]).eps == (0.1, 0.2, 0.3, 0.4)
    assert Scale.of("l2", [0.6, 2.9, 3.1], []).eps == (1.0, 2.0, 3.0, 4.0)
    assert Scale.of("l0", [1.0, 3.0, 4.0], []).eps == (1.0, 2.0, 3.0, 4.0)
    levels = Scale.of("linf", [k / 255 for k in range(1, 12)], [8 / 255]).eps
    assert [written(eps, "linf") for eps in levels] == [f"{k}/255" for k in (2, 4, 6, 8, 10)]
    assert (parts_of_one("linf", [8 / 255]), parts_of_one("l2", [8 / 255]), parts_of_one("linf", [0.2])) == (
        255,
        1,
        1,
    )
    assert written(0.2, "linf") == "0.2" and written(1.5, "l2") == "1.5"
