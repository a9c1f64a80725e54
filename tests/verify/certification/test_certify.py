"""Certified accuracy from Python: what is proved holds, and every figure is that of the verdicts."""

import dataclasses
import json
import re
import time
from fractions import Fraction
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn

import advkit
from advkit.attacks.perturb import perturb
from advkit.core import files, rng
from advkit.core.errors import ConfigError, ModelError
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.evaluation.result import EvaluationResult
from advkit.models.card import DataFacts
from advkit.models.load import wrap
from advkit.models.network import build
from advkit.verify.bounds.read import read
from advkit.verify.certification.certify import certify
from advkit.verify.certification.prove import Prover
from advkit.verify.certification.result import CertificationResult, CertifiedVerdict
from advkit.verify.certification.settings import Certification

N, METHODS = 24, ("interval", "linear", "optimised")


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
    return wrap(network).eval(), Data("toy", "test", images, labels, tuple("abcd"), torch.arange(N) + 7)


def linear(scale):
    """A linear network of six pixels and three classes, and its data, labelled by itself."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    images = rng.uniform(torch.arange(40), (1, 2, 3))
    with torch.no_grad():
        network[1].weight.copy_(rng.normal(torch.arange(3), (6,)) * scale)
        network[1].bias.copy_(-network[1].weight.sum(1) / 2)
        labels = network(images).argmax(1)
    return network, Data("toy", "test", images, labels, tuple("abc"), torch.arange(40))


def fall(steep, room, norm, eps):
    """How far a linear function falls in exact arithmetic; in l2 by a multiplier that is right to float64."""
    if norm == "l1":
        fallen, left = Fraction(0), eps
        for slope, width in sorted(zip(steep, room, strict=True), reverse=True):
            fallen, left = fallen + slope * min(width, left), left - min(width, left)
        return fallen
    flat, wide, low, high = steep.astype(float), room.astype(float), 1e-12, 1e12
    for _ in range(300):
        middle = (low * high) ** 0.5
        far = np.linalg.norm(np.minimum(flat / (2 * middle), wide)) > eps
        low, high = (middle, high) if far else (low, middle)
    price = Fraction(high)
    moved = [min(slope / (2 * price), width) for slope, width in zip(steep, room, strict=True)]
    return sum((slope - price * by) * by for slope, by in zip(steep, moved, strict=True)) + price * eps**2


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_margins_of_a_linear_network_are_the_exact_ones_less_all_rounding(norm, method):
    network, data = linear(1.0)
    weights, offsets = (np.vectorize(Fraction)(part.detach().double()) for part in network[1].parameters())
    threat, proved = Threat(norm, {"linf": 0.1, "l2": 0.12, "l1": 0.12}[norm]), set()
    eps = Fraction(threat.eps) + Fraction(threat.slack)
    for verdict, image in zip(certify(network, data, threat, method).verdicts, data.images, strict=True):
        x, own = np.vectorize(Fraction)(image.flatten().double()), verdict.label
        low, high = np.maximum(x - eps, 0), np.minimum(x + eps, 1)
        # Of two float32 sums of 7 terms, by Higham, wherever in the box.
        off = 7 * Fraction(2) ** -24 * (abs(weights) @ high + abs(offsets))
        box, dual = [], []
        for other in {0, 1, 2} - {own}:
            a, both = weights[own] - weights[other], off[own] + off[other]
            constant = offsets[own] - offsets[other]
            box.append((constant + np.minimum(a * low, a * high).sum() - both, both))
            room = np.where(a > 0, x - low, high - x)
            dual.append((constant + a @ x - fall(abs(a), room, norm, eps) - both, both))
        by_box = norm == "linf" or method == "interval" or (method == "auto" and min(box)[0] > 0)
        wanted, rounding = min(box if by_box else dual)
        assert 0.99 * rounding < verdict.rounding < 1.5 * rounding
        # Below the exact one, however little float64 is off, and not far below; roots are not exact here.
        error = Fraction(verdict.margin) + Fraction(verdict.rounding) - wanted - rounding
        assert -1e-11 < error < (1e-15 if norm == "l2" else 0)
        assert verdict.status == ("certified" if verdict.margin > 0 else "undecided")
        if method != "auto" or verdict.margin > 0:
            assert verdict.method == (method if method != "auto" else "interval" if by_box else "linear")
        proved.add((verdict.margin > 0, by_box))
    assert {certified for certified, _ in proved} == {False, True}
    assert len(proved) == 2 + (method == "auto" and norm != "linf")


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_a_tie_is_not_proved(method):
    verdicts = certify(*linear(0.0), Threat("linf", 0.1), method).verdicts
    by = "interval" if method == "auto" else method
    found = {(v.label, v.status, v.margin, v.rounding, v.method) for v in verdicts}
    assert found == {(0, "undecided", 0, 0, by)}


def check(result):
    """Every figure of a result against its verdicts alone."""
    n, status = len(result.verdicts), [verdict.status for verdict in result.verdicts]
    proved, right = status.count("certified"), n - status.count("misclassified")
    assert (result.n, result.clean_correct, result.certified_correct) == (n, right, proved)
    assert result.undecided == status.count("undecided")
    left = right
    for method in result.methods:
        counted = sum(v.status == "certified" and v.method == method.name for v in result.verdicts)
        assert (method.tried, method.proved) == (left, counted)
        left -= counted
    assert left == result.undecided
    shares = [[100 * k / n, *(100 * end for end in binomtest(k, n).proportion_ci())] for k in (right, proved)]
    assert [100 * one for one in (result.clean_accuracy, *result.clean_interval)] == pytest.approx(shares[0])
    assert [100 * one for one in (result.certified_accuracy, *result.interval)] == pytest.approx(shares[1])
    told = [float(one) for one in re.findall(r"(?<![a-z])\d+(?:\.\d+)?(?:e[-+]\d+)?", str(result))]
    assert told[:6] == pytest.approx(shares[0] + shares[1], abs=0.051)
    assert told[6:] == pytest.approx([result.threat.eps, n], rel=1e-3)
    assert CertificationResult.from_json(result.to_json()) == result


FOUND = [(status, method) for status in ("certified", "undecided") for method in METHODS]
FOUND = st.sampled_from([("misclassified", None), *FOUND])


@settings(max_examples=40)
@given(st.lists(FOUND, min_size=1, max_size=60), st.floats(1e-4, 10))
def test_the_figures_are_those_of_the_verdicts(found, eps):
    names = ("id", "status", "method")
    rows = [dict(zip(names, (k, *one), strict=True)) for k, one in enumerate(found)]
    verdicts = tuple(CertifiedVerdict(label=0, **row) for row in rows)
    about = {"status": "complete", "method": "auto", "model_hash": "", "card": None, "seconds": 1.0}
    about |= {"environment": {}, "threat": {"norm": "l2", "eps": eps}}
    about |= {"data": DataFacts(name="toy", split="test", fingerprint="", n=len(found))}
    check(CertificationResult.of(verdicts, METHODS, **about))


@pytest.mark.parametrize("threat", [Threat("linf", 0.02), Threat("l2", 0.1), Threat("l1", 0.5)], ids=str)
def test_nothing_inside_the_ball_is_below_the_margin(judged, threat):
    model, data = judged
    begun = time.perf_counter()
    results = [certify(model, data, threat, method) for method in (*METHODS, "auto")]
    assert 0 < sum(result.seconds for result in results) <= time.perf_counter() - begun
    adversarial = perturb(model, data.images, data.labels, threat, "pgd", precision="float32").x
    logits = model(adversarial).detach().double()
    others = logits.scatter(1, data.labels[:, None], -torch.inf).amax(1)
    leads = (logits.gather(1, data.labels[:, None])[:, 0] - others).tolist()
    for result in results:
        check(result)
        assert [v.id for v in result.verdicts] == data.ids.tolist() and result.clean_correct == 22
        assert [v.label for v in result.verdicts] == data.labels.tolist()
        for verdict, lead in zip(result.verdicts, leads, strict=True):
            assert (verdict.status == "certified") == (verdict.margin is not None and verdict.margin > 0)
            assert verdict.margin is None if verdict.status == "misclassified" else verdict.margin < lead
    assert [v.id - 7 for v in result.verdicts if v.status == "misclassified"] == [4, 9]
    proved = [{v.id for v in result.verdicts if v.status == "certified"} for result in results]
    assert proved[0] <= proved[1] <= proved[2] == proved[3] and proved[0] < proved[2]
    for result, method in zip(results, (*METHODS, "auto"), strict=True):
        assert [one.name for one in result.methods] == (list(METHODS) if method == "auto" else [method])
        assert method == "auto" or {v.method for v in result.verdicts} == {method, None}
    gained = []
    for *alone, auto in zip(*(result.verdicts for result in results), strict=True):
        first = next((one.method for one in alone if one.status == "certified"), None)
        assert first is None or auto.method == first
        gained += [alone[2].margin - alone[1].margin] if auto.status == "undecided" else []
    assert max(gained) > 1e-3 and min(gained) > -1e-9


def test_a_device_without_float64_is_replaced_by_the_cpu(judged):
    prover = Prover(read(judged[0]), Threat("linf", 0.1), "auto", torch.device("mps"))
    assert prover.bounder.device == torch.device("cpu")


def heard(told):
    """What a `Progress` was told: the task's words, units that were done with the share proved, sentences."""
    steps = [(*call.args, call.kwargs["proved"]) for call in told.task().__enter__().advance.call_args_list]
    return told.task.call_args_list[0], steps, [call.args[0] for call in told.say.call_args_list]


@pytest.mark.parametrize(("method", "size"), [("auto", 1), ("interval", 5), ("linear", 64)])
def test_progress_tells_the_share_that_is_proved(judged, method, size):
    (model, data), threat, told = judged, Threat("linf", 0.02), MagicMock()
    result = certify(model, data, threat, method, batch_size=size, progress=told)
    task, steps, said = heard(told)
    assert (task.args[1], task.kwargs["done"], said) == (N, 2, [])
    assert (method in task.args[0]) == (method != "auto")
    status = [verdict.status for verdict in result.verdicts if verdict.status != "misclassified"]
    ends = [min(k + size, 22) for k in range(0, 22, size)]
    assert [n for n, _ in steps] == np.diff([0, *ends]).tolist()
    shares = [status[:end].count("certified") / (2 + end) for end in ends]
    assert [share for _, share in steps] == pytest.approx(shares)
    for one, other in zip(result.verdicts, certify(model, data, threat, method).verdicts, strict=True):
        assert one.status == other.status and one.margin == pytest.approx(other.margin, abs=1e-5)


def test_a_run_in_pieces_ends_as_a_whole_one(judged, stopping, tmp_path):
    model, data = judged

    def run(folder, eps=0.02, written=None, **how):
        with RunFolder.open("certify", "toy", Certification(model="m"), tmp_path / folder) as opened:
            if written:
                (opened.path / "certified.jsonl").write_text(written)
            result = certify(model, data, Threat("linf", eps), batch_size=4, run=opened, **how)
        return result, (opened.path / "certified.jsonl").read_text()

    whole, text = run("whole")
    head, *lines = text.splitlines(keepends=True)
    facts = [files.unsealed_line(line.rstrip("\n")) for line in (head, *lines)]
    assert json.loads(facts[0]) == {"schema": "advkit/certified", "version": 1}
    recorded = [CertifiedVerdict.model_validate_json(line) for line in facts[1:]]
    assert recorded == list(whole.verdicts)
    with pytest.raises(KeyboardInterrupt):
        run("killed", progress=stopping)
    left = (tmp_path / "killed" / "certified.jsonl").read_text().splitlines(keepends=True)
    assert left[0] == head and len(left) == 1 + 2 + 8 and set(left) < {head, *lines}
    for seed in range(4):
        order = rng.permutation(seed, "lines", N)[: 8 * seed].tolist()
        known, told = [lines[k] for k in order], MagicMock()
        again, text = run(f"cut{seed}", written="".join([head, *known, lines[0][:20]]), progress=told)
        assert again.verdicts == whole.verdicts and text == "".join([head, *lines])
        task, steps, said = heard(told)
        assert [re.findall(r"\d+", one) for one in said] == [[str(len(known)), str(N)]] * bool(known)
        wrong = {row for row, one in enumerate(recorded) if one.status == "misclassified"}
        decided = len({*wrong, *order})  # those that are wrong are found at once
        assert sum(n for n, _ in steps) == N - decided == N - task.kwargs["done"]
        assert not steps or steps[-1][1] == pytest.approx(whole.certified_accuracy)
    for other in ({"eps": 0.03}, {"method": "linear"}):
        with pytest.raises(ConfigError):
            run("whole", **other)


def test_a_part_is_partial_and_pairs_of_tensors_will_do(judged):
    model, data = judged
    pair = (data.images, data.labels.clamp(max=1))  # there may be more classes than those that occur
    result = certify(model, pair, Threat("linf", 0.01), n=6)
    assert result.status == "partial" and [v.id for v in result.verdicts] == list(range(6))
    whole = certify(model, dataclasses.replace(data, threat=Threat("linf", 1.0)), n=N)
    assert whole.status == "complete" and whole.threat.eps == 1 and whole.undecided == 22


def test_faults_are_named(judged):
    model, data = judged
    threat = Threat("linf", 0.1)
    for wrong in ((Threat("l0", 3),), (threat, "exact"), (None,)):
        with pytest.raises(ConfigError):
            certify(model, data, *wrong)
    with pytest.raises(ModelError):
        certify(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), data, threat)
    odd = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Softplus(), nn.Linear(8, 4))
    for ask in (certify, lambda *args: advkit.evaluate(*args, attack="pgd", certify=True)):
        with pytest.raises(ModelError, match="Softplus"):
            ask(odd, data, threat)
    counting = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4))
    for kind in (torch.float64, torch.int32):
        counting.register_buffer("kept", torch.zeros(1, dtype=kind))
        assert certify(counting, data, threat).n == N
    for kind in (torch.float16, torch.bfloat16):
        counting.register_buffer("kept", torch.zeros(1, dtype=kind))
        with pytest.raises(ModelError, match="kept"):
            certify(counting, data, threat)


def test_an_evaluation_tells_both_sides(judged):
    model, data = judged
    threat = Threat("linf", 0.02)
    plain, both = (
        advkit.evaluate(model, data, threat, "pgd", precision="float32", certify=certify)
        for certify in (False, True)
    )
    alone = [verdict.status == "certified" for verdict in certify(model, data, threat).verdicts]
    certified = [verdict.status == "certified" for verdict in both.verdicts]
    assert both.robust_correct == plain.robust_correct and plain.certified_correct is None
    assert certified == alone and both.certified_correct == sum(alone) > 0
    assert both.stages[0].attacked == 22 - sum(alone) < plain.stages[0].attacked
    for one, other in zip(both.verdicts, plain.verdicts, strict=True):
        assert one.status != "certified" or (one.forwards == 0 and other.status == "robust")
    shares = [100 * k / N for k in (sum(alone), both.robust_correct, both.robust_correct - sum(alone))]
    told = re.findall(r"([\d.]+) %(?: \(|[,;. ]|$)", both.summary())
    assert [float(one) for one in told] == pytest.approx([100 * 22 / N, *shares], abs=0.051)
    assert EvaluationResult.from_json(both.to_json()) == both
    proved = advkit.evaluate(model, data, Threat("linf", 1e-6), "pgd", certify=True)
    assert proved.certified_correct == proved.robust_correct == 22 and proved.stages[0].attacked == 0
    assert proved.trusted
