"""``advkit smooth`` from what is typed to what it leaves."""

import itertools
import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from advkit.commands.smooth import run
from advkit.core.context import Context
from advkit.report.figures import verification as figures
from advkit.verify.smoothing.result import SmoothingResult
from advkit.verify.smoothing.settings import SmoothedCertification

WORDS = ["smooth", "--model=clf.pt", "--data=digits", "--n=20", "--sigma=0.2", "--samples=200"]


pytestmark = pytest.mark.usefixtures("here")


def test_tables_and_sentences_are_those_of_the_verdicts(numbers, drawn):
    how = {"n": 60, "skip": 3, "sigma": 0.4, "samples": 400, "alpha": 0.01, "min_radius": 0.9}
    config = SmoothedCertification(model="clf.pt", data="digits", **how)
    told, result = run(config, Context(out=Path("run"))), SmoothingResult.load("run")
    assert told.result == result.as_values() and told.files == (Path("run"),) and not told.passed
    assert [verdict.id for verdict in result.verdicts] == list(range(0, 180, 3))
    status = [verdict.status for verdict in result.verdicts]
    counts = [status.count(name) for name in ("right", "wrong", "abstained")]
    assert min(counts) > 0 and result.bare_correct > counts[0]
    answers, radii = (table.rows for table in told.tables)
    counts += [result.bare_correct, *(point.certified for point in result.points)]
    for count, (_, told_count, share) in zip(counts, [*answers, *radii], strict=True):
        assert numbers(told_count) == [count]
        ends = binomtest(count, 60).proportion_ci()
        assert numbers(share) == pytest.approx([100 * one for one in (count / 60, *ends)], abs=0.051)
    assert [float(row[0]) for row in radii] == pytest.approx([p.radius for p in result.points], rel=5e-3)
    assert told.sentences[0] == result.sentence
    assert numbers(told.sentences[1]) == pytest.approx([400, result.largest_radius, 0.99], abs=5.1e-4)
    assert numbers(told.sentences[2]) == [60, 3]
    assert numbers(told.sentences[-1]) == pytest.approx([result.average_radius, 0.9], abs=5.1e-5)
    (line,) = drawn(figures.radii(result)).values()
    ends = 1.04 * result.largest_radius
    for (left, share), (right, level) in itertools.pairwise(line):
        if left != right:  # a stair, whose height is what is certified beyond its left end
            beyond = sum(radius > (left + right) / 2 * ends for radius in result.radii)
            assert share == level == pytest.approx(beyond / 60, abs=2e-3)
    assert numbers(told.next[0].split("--eps")[1]) == pytest.approx([result.average_radius], rel=5e-3)


def test_leaves_what_it_says(capsys, typed):
    assert typed(*WORDS, "--out=run", "--json=result.json") == 0
    files = {path.name for path in Path("run").iterdir()}
    assert files >= {"result.json", "report.html", "curve.svg", "smoothed.jsonl"}
    assert Path("run/curve.svg").read_bytes()[:5] == b"<?xml"
    result = SmoothingResult.load("run").as_values()
    assert result == json.loads(Path("result.json").read_text(encoding="utf-8"))
    again = [*WORDS, "--out=run", "--batch-size=300", "--json=again.json"]
    capsys.readouterr()
    assert typed(*again, "--min-radius=0.7") == 1 and typed(*again, "--min-radius=0.01") == 0
    assert "finished" in " ".join(capsys.readouterr().err.split())
    assert json.loads(Path("again.json").read_text(encoding="utf-8")) == result


def test_a_model_that_noise_confuses_is_told_how_to_be_trained(numbers):
    told = run(SmoothedCertification(model="clf.pt", data="digits", n=20, sigma=2, samples=200), Context())
    assert numbers(told.warning) == [told.result["bare_correct"], told.result["right"]]
    assert told.warning in told.sentences
    assert "--objective noise --set parameters.sigma=2 " in told.next[0]


def test_sigma_is_that_of_the_training(capsys, typed, here):
    words = [word for word in WORDS if "sigma" not in word]
    assert typed(*words) == 2
    assert "--sigma" in capsys.readouterr().err
    here("noisy.pt", training={"objective": "noise", "parameters": {"sigma": "1/5"}})
    words[1] = "--model=noisy.pt"
    assert typed(*words, "--dry-run", "--json=said.json") == 0
    assert (
        "0.2" in capsys.readouterr().err
        and json.loads(Path("said.json").read_text(encoding="utf-8"))["sigma"] == 0.2
    )


def test_a_dry_run_says_what_it_would_cost(capsys, typed):
    assert typed(*WORDS, "--dry-run", "--json=plan.json") == 0
    assert json.loads(Path("plan.json").read_text(encoding="utf-8"))["forwards"] == 20 * 300
    assert "0.365" in capsys.readouterr().out
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", ["--samples=5", "--sigma=0", "--sigma=-1/2", "--alpha=1", "--data=mnist-c"])
def test_faults_are_exit_code_2(words, capsys, typed):
    assert typed(*WORDS, words) == 2
    assert words.split("=")[0].strip("-") in capsys.readouterr().err
    assert not Path("runs").exists()
