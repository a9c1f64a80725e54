"""Certified accuracy from Python: what is proved holds, and what was proved is not proved again."""

import json

import pytest
import torch
from torch import nn

import advkit
from advkit import rng
from advkit.certification.certify import certify
from advkit.certification.plan import Certification
from advkit.certification.prove import Prover
from advkit.certification.result import CertificationResult
from advkit.data.data import Data
from advkit.errors import ConfigError, DataError, ModelError
from advkit.evaluation.result import EvaluationResult
from advkit.models.load import wrap
from advkit.models.network import build
from advkit.runs import RunFolder
from advkit.threat import Threat

N = 24


@pytest.fixture(scope="module")
def judged():
    """(model, data): a small network on 8x8 images, labelled by itself but for two that it gets wrong."""
    with rng.scope("cpu", 1, "certified"):
        network = build("mlp", shape=(1, 8, 8), classes=4, config={"hidden": (16, 12)})
    images = rng.uniform(torch.arange(N), (1, 8, 8))
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2)
        list(network.parameters())[-1].sub_(network(images).mean(0))
        labels = network(images).argmax(1)
    labels[[4, 9]] = (labels[[4, 9]] + 1) % 4
    return wrap(network).eval(), Data("toy", "test", images, labels, tuple("abcd"), torch.arange(N))


def test_what_is_proved_is_not_broken_and_what_is_broken_is_not_proved(judged):
    model, data = judged
    for threat in (Threat("linf", 0.02), Threat("l2", 0.1), Threat("l1", 0.5)):
        proved = certify(model, data, threat)
        attacked = advkit.evaluate(model, data, threat, "pgd", precision="float32")
        pairs = {(a.status, b.status) for a, b in zip(proved.verdicts, attacked.verdicts, strict=True)}
        assert ("certified", "broken") not in pairs and ("certified", "robust") in pairs
        assert {a for a, b in pairs if b == "misclassified"} == {"misclassified"}
        assert 0 < proved.certified_accuracy <= attacked.robust_accuracy <= proved.clean_accuracy == 22 / N
        assert proved.interval.low < proved.certified_accuracy < proved.interval.high
        for verdict in proved.verdicts:
            assert (verdict.status == "certified") == (verdict.margin is not None and verdict.margin > 0)
            assert (verdict.margin is None) == (verdict.status == "misclassified")


def test_each_method_proves_what_a_cheaper_one_does(judged):
    model, data = judged
    counts = [
        certify(model, data, Threat("linf", 0.015), m) for m in ("interval", "linear", "optimised", "auto")
    ]
    proved = [{v.id for v in result.verdicts if v.status == "certified"} for result in counts]
    assert proved[0] < proved[1] <= proved[2] == proved[3]
    tried = [(method.name, method.tried, method.proved) for method in counts[3].methods]
    assert tried[0] == ("interval", 22, len(proved[0]))
    assert tried[1][:2] == ("linear", 22 - len(proved[0]))
    assert sum(count for _, _, count in tried) == counts[3].certified_correct


def test_the_batch_size_changes_nothing(judged):
    model, data = judged
    few, many = (certify(model, data, Threat("linf", 0.02), batch_size=size) for size in (5, 100))
    assert [v.status for v in few.verdicts] == [v.status for v in many.verdicts]
    for one, other in zip(few.verdicts, many.verdicts, strict=True):
        assert one.margin == pytest.approx(other.margin, abs=1e-5)


def test_eps_1_is_allowed_and_proves_nothing(judged):
    model, data = judged
    result = certify(model, data, Threat("linf", 1.0))
    assert result.certified_correct == 0 and result.undecided == 22


def test_a_part_is_partial_and_pairs_of_tensors_will_do(judged):
    model, data = judged
    result = certify(model, (data.images, data.labels), Threat("linf", 0.01), n=6)
    assert result.status == "partial" and result.n == 6 and [v.id for v in result.verdicts] == list(range(6))


class Killed(BaseException):
    """As sudden as kill -9."""


def test_a_killed_run_goes_on_where_it_was(judged, tmp_path, monkeypatch):
    model, data = judged
    threat, prove, batches = Threat("linf", 0.02), Prover.prove, []

    def counting(self, x, label):
        batches.append(len(x))
        if len(batches) == 4:
            raise Killed
        return prove(self, x, label)

    def run(folder):
        with RunFolder.open("certify", "toy", Certification(model="m"), tmp_path / folder) as opened:
            return certify(model, data, threat, batch_size=4, run=opened)

    whole = run("whole")
    monkeypatch.setattr(Prover, "prove", counting)
    with pytest.raises(Killed):
        run("killed")
    path = tmp_path / "killed" / "certified.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + 2 + 12  # the format, the misclassified, three batches
    path.write_text("\n".join(lines)[:-20])  # the last line is cut short
    assert run("killed").verdicts == whole.verdicts
    assert batches[4:] == [4, 4, 4, 2]
    with (
        pytest.raises(ConfigError, match="did not begin with the same"),
        RunFolder.open("certify", "toy", Certification(model="m"), tmp_path / "killed") as opened,
    ):
        certify(model, data, Threat("linf", 0.03), run=opened)


def test_faults_are_named(judged):
    model, data = judged
    with pytest.raises(ConfigError, match="choose --norm linf, l2 or l1"):
        certify(model, data, Threat("l0", 3))
    with pytest.raises(ConfigError, match="there is no method 'exact'; choose auto, interval"):
        certify(model, data, Threat("linf", 0.1), "exact")
    odd = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Softplus(), nn.Linear(8, 4))
    for ask in (certify, lambda *args: advkit.evaluate(*args, attack="pgd", certify=True)):
        with pytest.raises(ModelError, match=r"layer '2' \(Softplus\) cannot be bounded"):
            ask(odd, data, Threat("linf", 0.1))


def test_the_result_is_a_file(judged, tmp_path):
    model, data = judged
    result = certify(model, data, Threat("linf", 0.02))
    (tmp_path / "result.json").write_text(result.to_json())
    assert CertificationResult.load(tmp_path) == result
    assert "certified accuracy" in str(result)
    (tmp_path / "result.json").write_text(json.dumps({**result.as_values(), "version": 99}))
    with pytest.raises(DataError, match="newer advkit"):
        CertificationResult.load(tmp_path)


def test_an_evaluation_tells_both_sides(judged):
    model, data = judged
    threat = Threat("linf", 0.02)
    plain = advkit.evaluate(model, data, threat, "pgd", precision="float32")
    both = advkit.evaluate(model, data, threat, "pgd", precision="float32", certify=True)
    proved = certify(model, data, threat)
    assert both.robust_correct == plain.robust_correct and plain.certified_correct is None
    assert both.certified_correct == proved.certified_correct > 0
    assert both.stages[0].attacked == 22 - both.certified_correct < plain.stages[0].attacked
    assert [v.id for v in both.verdicts if v.status == "certified"] == [
        v.id for v in proved.verdicts if v.status == "certified"
    ]
    assert all(v.forwards == 0 for v in both.verdicts if v.status == "certified")
    shares = [
        100 * k / N
        for k in (both.certified_correct, both.robust_correct, both.robust_correct - both.certified_correct)
    ]
    said = "robust accuracy between {:.1f} % (proved) and {:.1f} % (attacked), undecided {:.1f} %".format(
        *shares
    )
    assert said in both.summary()
    assert EvaluationResult.from_json(both.to_json()) == both


def test_where_all_is_proved_there_is_nothing_to_attack(judged):
    model, data = judged
    result = advkit.evaluate(model, data, Threat("linf", 1e-6), "pgd", certify=True)
    assert result.certified_correct == result.robust_correct == 22 and result.stages[0].attacked == 0
    assert result.trusted and "every image that stands is proved" in result.trust
