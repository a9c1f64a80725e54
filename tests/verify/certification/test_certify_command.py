"""``advkit certify`` and ``advkit attack --certify`` from what is typed to what they leave."""

import json
import re
from pathlib import Path

import pytest
from scipy.stats import binomtest

import advkit
from advkit.commands.certify import run
from advkit.core import files
from advkit.core.context import Context
from advkit.verify.certification.result import CertificationResult
from advkit.verify.certification.settings import Certification

WORDS = ["certify", "--model=clf.pt", "--data=digits", "--n=40", "--norm=linf", "--eps=0.02"]


pytestmark = pytest.mark.usefixtures("here")


def exact(count, n):
    """The fraction in percent and its interval, as they are told."""
    ends = binomtest(count, n).proportion_ci()
    return pytest.approx([100 * share for share in (count / n, *ends)], abs=0.051)


@pytest.mark.parametrize(("n", "method"), [(40, "auto"), (None, "linear")])
def test_tables_and_sentences_are_those_of_the_verdicts(n, method, numbers):
    config = Certification(model="clf.pt", data="digits", n=n, norm="l2", eps=0.1, method=method)
    told = run(config, Context(out=Path("run")))
    result = CertificationResult.load("run")
    assert told.result == result.as_values() and told.files == (Path("run"),)
    assert told.passed and not told.judged
    n, status = len(result.verdicts), [verdict.status for verdict in result.verdicts]
    right, proved = n - status.count("misclassified"), status.count("certified")
    assert 0 < proved < right < n and (result.status == "partial") == (n == 40)
    by_method, by_class = (table.rows for table in told.tables)
    assert numbers(by_method[0][3]) == exact(right, n)
    left, done = right, 0
    for (name, tried, found, share), own in zip(by_method[1:], result.methods, strict=True):
        counted = sum(v.status == "certified" and v.method == name for v in result.verdicts)
        done += counted
        assert (name, numbers(tried), numbers(found)) == (own.name, [left], [counted])
        assert numbers(share) == exact(done, n)
        left -= counted
    names = advkit.load_data("digits", "test").class_names
    assert [row[0] for row in by_class] == [
        names[label] for label in sorted({v.label for v in result.verdicts})
    ]
    for name, count, clean, share in by_class:
        mine = [v.status for v in result.verdicts if names[v.label] == name]
        assert numbers(count) == [len(mine)] and numbers(share) == exact(mine.count("certified"), len(mine))
        assert numbers(clean) == exact(len(mine) - mine.count("misclassified"), len(mine))
    assert told.sentences[0] == result.sentence
    assert numbers(told.sentences[1]) == pytest.approx(
        [100 * proved / n, status.count("undecided")], abs=0.051
    )
    assert [numbers(sentence) for sentence in told.sentences[2:]] == ([[40]] if n == 40 else [])
    attack, less = (dict(re.findall(r"--(\w+) (\S+)", line)) for line in told.next)
    assert (attack["norm"], attack["eps"], less["norm"], less["eps"]) == ("l2", "0.1", "l2", "0.05")


def test_leaves_what_it_says(capsys, typed):
    assert typed(*WORDS, "--out=run", "--json=result.json") == 0
    capsys.readouterr()
    made = {path.name for path in Path("run").iterdir()}
    assert made >= {"result.json", "report.html", "margins.svg", "certified.jsonl"}
    assert Path("run/margins.svg").read_bytes()[:5] == b"<?xml"
    result = files.read_json(Path("run/result.json"))
    assert result == json.loads(Path("result.json").read_text(encoding="utf-8"))
    assert typed(*WORDS, "--out=run", "--json=again.json", "--min-certified=0.99") == 1
    assert "finished" in " ".join(capsys.readouterr().err.split())
    assert json.loads(Path("again.json").read_text(encoding="utf-8")) == result


def test_a_dry_run_shows_how_the_network_is_read(capsys, typed):
    assert typed(*WORDS, "--dry-run", "--json=plan.json") == 0
    assert "Dense" in capsys.readouterr().out
    plan = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    assert (plan["layers"], plan["n"], plan["threat"]) == (3, 40, {"norm": "linf", "eps": 0.02})
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", [["--norm=l0", "--eps=2"], ["--eps=8"], ["--eps=0"], ["--method=exact"]])
def test_faults_are_exit_code_2(words, capsys, typed):
    assert typed(*WORDS, *words) == 2
    assert words[0].split("=")[0].strip("-") in capsys.readouterr().err
    assert not Path("runs").exists()


def test_an_attack_with_proofs_tells_both_sides(capsys, typed, numbers):
    assert typed("attack", *WORDS[1:], "--attack=pgd", "--certify", "--json=both.json") == 0
    told = " ".join(capsys.readouterr().out.split())
    result = json.loads(Path("both.json").read_text(encoding="utf-8"))
    assert 0 < result["certified_correct"] <= result["robust_correct"] < 40
    shares = [100 * result[key] / 40 for key in ("certified_correct", "robust_correct")]
    if shares[0] < shares[1]:
        assert numbers(told[told.index("between") :])[:2] == pytest.approx(shares, abs=0.051)
    else:
        assert numbers(told[told.index("exactly") :])[:1] == pytest.approx(shares[:1], abs=0.051)
