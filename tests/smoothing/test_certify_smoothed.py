"""Certified radii of a data set: what they say, and that neither a crash nor company changes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from advkit.config import StrictModel
from advkit.errors import ConfigError, DataError, ModelError
from advkit.runs import RunFolder
from advkit.smoothing.certify import certify_smoothed
from advkit.smoothing.result import SmoothingResult

FEW = {"samples": 500, "selection": 20}


def opened(path):
    return RunFolder.open("test", "toy", StrictModel(), path)


def same(one, other):
    facts = {"seconds": 0.0, "environment": {}}
    return one.model_copy(update=facts) == other.model_copy(update=facts)


def test_radii_hold_and_make_the_figures(halfspace, data):
    result = certify_smoothed(halfspace, data, 0.25, **FEW)
    true = halfspace.distance(data.images).abs().tolist()
    for verdict, distance in zip(result.verdicts, true, strict=True):
        assert verdict.radius <= distance
        assert (verdict.status == "abstained") == (verdict.radius == 0)
    by_status = {
        status: [v.id for v in result.verdicts if v.status == status] for status in ("wrong", "right")
    }
    assert by_status["wrong"] == [2, 9]
    assert result.right == len(by_status["right"]) and result.wrong == 2
    assert result.right + result.wrong + result.abstained == result.n == 12 and result.abstained >= 1
    assert result.bare_correct == 10 and result.status == "complete"
    radii = [verdict.radius for verdict in result.verdicts if verdict.status == "right"]
    assert result.average_radius == pytest.approx(sum(radii) / 12)
    for point in result.points:
        assert point.certified == sum(radius > point.radius for radius in radii)
        assert point.interval.low <= point.accuracy == point.certified / 12 <= point.interval.high
    assert [point.radius for point in result.points] == pytest.approx([0, 0.125, 0.25, 0.375, 0.5])
    assert result.largest_radius >= max(radii)
    assert SmoothingResult.from_json(result.to_json()) == result
    for words in ("average certified radius", "sigma 0.25", "alpha 0.001", "500 samples", "n = 12"):
        assert words in str(result)


def test_a_part_has_the_verdicts_of_the_whole(halfspace, data):
    whole = certify_smoothed(halfspace, data, 0.25, **FEW)
    part = certify_smoothed(halfspace, data, 0.25, skip=3, n=3, batch_size=100, **FEW)
    assert part.verdicts == whole.verdicts[0:9:3]
    assert (part.status, part.skip, part.n) == ("partial", 3, 3)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(halfspace, data, stopping, tmp_path):
    with opened(tmp_path / "whole") as run:
        whole = certify_smoothed(halfspace, data, 0.25, run=run, **FEW)
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "cut") as run:
        certify_smoothed(halfspace, data, 0.25, run=run, progress=stopping, **FEW)
    lines = tmp_path / "cut" / "smoothed.jsonl"
    assert len(lines.read_text().splitlines()) == 3
    with lines.open("a") as file:
        file.write('{"id": 5, "lab')  # a line that a crash cut short
    drawn = []
    halfspace.register_forward_hook(lambda *_: drawn.append(1))
    with opened(tmp_path / "cut") as run:
        assert same(certify_smoothed(halfspace, data, 0.25, run=run, **FEW), whole)
    assert len(drawn) < 2 * 12 + 6  # two passes an image, but for those that were certified earlier
    assert lines.read_bytes() == (tmp_path / "whole" / "smoothed.jsonl").read_bytes()
    with (
        opened(tmp_path / "cut") as run,
        pytest.raises(ConfigError, match="did not begin with the same noise"),
    ):
        certify_smoothed(halfspace, data, 0.5, run=run, **FEW)


FORKED = Path(__file__).with_name("forked.py")


def test_neither_kill_nor_company_changes_what_is_found(tmp_path):
    command = [sys.executable, str(FORKED), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr


class Moody(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :2] + torch.rand(len(x), 2)


class Likely(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :2].softmax(1)


def test_probabilities_will_do_and_moods_will_not(data):
    assert certify_smoothed(Likely(), data, 0.25, **FEW).n == 12
    with pytest.raises(ModelError, match="randomised"):
        certify_smoothed(Moody(), data, 0.25, **FEW)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sigma": -1}, "above 0"),
        ({"alpha": 0}, "between 0 and 1"),
        ({"samples": 9}, "take 10 samples or more"),
        ({"skip": 0}, "skip of 1 or more"),
        ({"n": 0}, "at least 1"),
    ],
)
def test_what_is_out_of_range_is_refused(given, said, halfspace, data):
    with pytest.raises(ConfigError, match=said):
        certify_smoothed(halfspace, data, **{"sigma": 0.25, **given})


def test_other_shapes_and_classes_are_refused(halfspace, data):
    with pytest.raises(ModelError, match="fails on"):
        certify_smoothed(halfspace, (torch.rand(2, 1, 5, 5), torch.tensor([0, 1])), 0.25, **FEW)
    with pytest.raises(DataError, match="labels"):
        certify_smoothed(halfspace, torch.rand(2, 1, 4, 4), 0.25, **FEW)
