"""Certified radii of a data set: every figure against the verdicts, and these whatever crashes or helps."""

import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from torch import nn

from advkit.core import distributed, files, rng
from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.core.runs import RunFolder
from advkit.models.card import DataFacts
from advkit.verify.smoothing.certify import certify_smoothed
from advkit.verify.smoothing.classifier import smooth
from advkit.verify.smoothing.result import SmoothedVerdict, SmoothingResult

FEW = {"samples": 500, "selection": 20}


def opened(path):
    return RunFolder.open("test", "toy", StrictModel(), path)


def exact(count, n, near=1e-6):
    """The fraction in percent, and the ends of its interval."""
    ends = binomtest(count, n).proportion_ci()
    return pytest.approx([100 * share for share in (count / n, *ends)], abs=near)


def check(result):
    """Every figure of a result against its verdicts alone."""
    n, status = len(result.verdicts), [verdict.status for verdict in result.verdicts]
    counts = [status.count(name) for name in ("right", "wrong", "abstained")]
    radii = sorted(verdict.radius for verdict in result.verdicts if verdict.status == "right")
    most = max(0, result.sigma * norm.ppf(result.alpha ** (1 / result.samples)))
    assert [result.n, result.right, result.wrong, result.abstained] == [n, *counts]
    assert [100 * share for share in (result.accuracy, *result.interval)] == exact(counts[0], n)
    assert result.radii == radii and result.average_radius == pytest.approx(math.fsum(radii) / n)
    assert result.largest_radius == pytest.approx(most)
    assert len(result.points) == int(2 * most / result.sigma) + 1
    for number, point in enumerate(result.points):
        assert point.radius == pytest.approx(number * result.sigma / 2)
        assert point.certified == sum(radius > point.radius for radius in radii)
        assert [100 * share for share in (point.accuracy, *point.interval)] == exact(point.certified, n)
    told = re.findall(r"(?<![a-z])\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?", result.summary())
    mean, *share, abstained, sigma, alpha, samples, images = (float(one.replace(",", "")) for one in told)
    assert mean == pytest.approx(result.average_radius, abs=5.1e-4) and share == exact(counts[0], n, 0.051)
    assert (abstained, samples, images) == (counts[2], result.samples, n)
    assert (sigma, alpha) == pytest.approx((result.sigma, result.alpha), rel=1e-5)
    assert SmoothingResult.from_json(result.to_json()) == result


FOUND = st.tuples(st.sampled_from(["right", "wrong", "abstained"]), st.integers(1, 12))
SETTINGS = st.tuples(st.sampled_from([0.12, 0.5, 1.0]), st.integers(10, 100_000), st.floats(1e-6, 0.1))


@settings(max_examples=30)
@given(st.lists(FOUND, min_size=1, max_size=40), SETTINGS)
def test_the_figures_are_those_of_the_verdicts(found, how):
    about = {"selection": 100, "seed": 0, "skip": 1, "bare_correct": 0, "status": "complete", "seconds": 1.0}
    about |= {"model_hash": "", "card": None, "environment": {}}
    about |= {"data": DataFacts(name="toy", split="test", fingerprint="", n=len(found))}
    verdicts = []
    for k, (status, quarter) in enumerate(found):  # some radii are just those of the points
        rest = {"status": status, "radius": 0.0 if status == "abstained" else quarter * how[0] / 4}
        verdicts.append(SmoothedVerdict(id=k, label=0, selected=0, votes=1, share=0.5, **rest))
    about |= dict(zip(("sigma", "samples", "alpha"), how, strict=True))
    check(SmoothingResult.of(tuple(verdicts), **about))


def heard(told):
    """What a `Progress` was told: how much is to do, figures step by step, shares of a step, sentences."""
    task, (name, total) = told.task().__enter__(), told.task.call_args_list[0].args
    assert not re.search(r"\d", name)  # of several processes
    assert all(call.args == (1,) for call in task.advance.call_args_list)
    steps, shares = [call.kwargs for call in task.advance.call_args_list], task.underway.call_args_list
    return total, steps, [call.args[0] for call in shares], [call.args[0] for call in told.say.call_args_list]


def test_verdicts_are_certificates_that_hold_and_progress_tells_them(brightest, data, distances):
    begun, told = time.perf_counter(), MagicMock()
    result = certify_smoothed(brightest(), data, 0.25, seed=3, batch_size=200, progress=told, **FEW)
    assert 0 < result.seconds <= time.perf_counter() - begun
    check(result)
    assert (result.bare_correct, result.status, result.seed, result.selection) == (10, "complete", 3, 20)
    found = smooth(brightest(), 0.25, seed=3).certify(data.images, data.ids, **FEW)
    rows = zip(result.verdicts, found, data.labels.tolist(), distances.abs().tolist(), strict=True)
    for number, (verdict, one, label, distance) in enumerate(rows):
        assert one.radius <= distance
        status = "abstained" if one.radius == 0 else "right" if one.selected == label else "wrong"
        assert verdict == SmoothedVerdict(id=number, label=label, status=status, **vars(one))
    assert result.wrong == 2 and result.abstained > 0
    total, steps, shares, said = heard(told)
    assert total == len(steps) == 12 and said == [] and shares == [0.4, 0.8, 1.0] * 12
    for done, facts in enumerate(steps, 1):
        right = [verdict.radius for verdict in result.verdicts[:done] if verdict.status == "right"]
        wanted = {"accuracy": len(right) / done, "average_radius": sum(right) / done}
        assert facts == pytest.approx(wanted)


@pytest.mark.parametrize(("skip", "n"), [(1, None), (1, 12), (2, None), (3, 3), (5, 100)])
def test_a_part_has_the_verdicts_of_the_whole(skip, n, brightest, data):
    whole = certify_smoothed(brightest(), data, 0.25, seed=0, **FEW)
    part = certify_smoothed(brightest(), data, 0.25, skip=skip, n=n, batch_size=100, **FEW)
    assert part.verdicts == whole.verdicts[::skip][:n] and part.seed == 0
    assert (part.status, part.skip) == ("complete" if len(part.verdicts) == 12 else "partial", skip)
    assert certify_smoothed(brightest(), data, 0.25, n=n, **FEW).verdicts == whole.verdicts[:n]


def test_of_images_in_the_order_of_their_classes_a_sample_is_taken(brightest, data):
    ordered = replace(data, images=data.images.repeat(50, 1, 1, 1), labels=torch.arange(600) // 300)
    ordered = replace(ordered, ids=torch.arange(600))
    for first in (False, True):
        more = {"first": True} if first else {}
        ids = [
            verdict.id
            for verdict in certify_smoothed(brightest(), ordered, 0.25, n=4, **more, **FEW).verdicts
        ]
        assert ids == ordered.limit(4, first=first).ids.tolist() and (ids == [0, 1, 2, 3]) == first


def test_a_run_in_pieces_ends_as_a_whole_one(brightest, data, stopping, tmp_path):
    def certified(**other):
        return certify_smoothed(brightest(), data, **{"sigma": 0.25, "run": run, **FEW, **other})

    with opened(tmp_path / "whole") as run:
        whole = certified()
    head, *lines = (run.path / "smoothed.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(files.unsealed_line(head.rstrip())) == {"schema": "advkit/smoothed", "version": 1}
    found = (SmoothedVerdict.model_validate_json(files.unsealed_line(line.rstrip())) for line in lines)
    assert tuple(found) == whole.verdicts
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "cut") as run:
        certified(progress=stopping)
    assert (run.path / "smoothed.jsonl").read_text() == "".join([head, *lines[:2]])
    for seed in range(6):  # whichever process has found what, in whatever order, the last line cut short
        where = rng.integers(rng.keys(seed, "where", torch.arange(12)), (), 4).tolist()
        told, left = MagicMock(), where.count(3)
        with opened(tmp_path / f"cut{seed}") as run:
            for place, name in enumerate(("smoothed.jsonl", "smoothed.1.jsonl", "smoothed.5.jsonl")):
                known = [line for line, here in zip(lines, where, strict=True) if here == place]
                (run.path / name).write_text("".join([head, *known[::-1], lines[0][:20]]))
            assert certified(progress=told).verdicts == whole.verdicts
        assert (run.path / "smoothed.jsonl").read_text() == "".join([head, *lines])
        assert not list(run.path.glob("smoothed.*.jsonl"))
        total, steps, _, said = heard(told)
        assert total == len(steps) == left
        assert [re.findall(r"\d+", one) for one in said] == [[str(12 - left), "12"]]
    for other in (
        {"sigma": 0.5},
        {"seed": 1},
        {"alpha": 0.01},
        {"samples": 600},
        {"selection": 21},
        {"skip": 2},
    ):
        with opened(tmp_path / "whole") as run, pytest.raises(ConfigError):
            certified(**other)


FORKED = Path(__file__).with_name("forked.py")


def test_neither_kill_nor_company_changes_what_is_found(tmp_path):
    command = [sys.executable, str(FORKED), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr


def test_processes_with_other_images_are_refused(brightest, data, monkeypatch):
    monkeypatch.setattr(distributed, "gather", lambda inputs: [inputs, (*inputs[:-1], "other")])
    with pytest.raises(ConfigError):
        certify_smoothed(brightest(), data, 0.25, **FEW)


class Moody(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :2] + torch.rand(len(x), 2)


def test_models_that_do_not_fit_are_refused_and_too_few_labels_are_not(brightest, data):
    for model, few in ((Moody(), data), (brightest(3), data), (brightest(7), data)):
        with pytest.raises(ModelError):
            certify_smoothed(model, few, 0.25, **FEW)
    assert certify_smoothed(brightest(3), (data.images, data.labels), 0.25, **FEW).n == 12
    with pytest.raises(DataError):
        certify_smoothed(brightest(), data.images, 0.25, **FEW)


@pytest.mark.parametrize("given", [{"sigma": -1}, {"alpha": 0}, {"samples": 9}, {"skip": 0}, {"n": 0}])
def test_what_is_out_of_range_is_refused(given, brightest, data):
    with pytest.raises(ConfigError):
        certify_smoothed(brightest(), data, **{"sigma": 0.25, **given})
