"""The plugin of pytest, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from advkit.models.checkpoint import save_model

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
from advkit import Threat

pytestmark = pytest.mark.robust(data="npz:toy.npz", threat=Threat("linf", 0.001), attack="fgsm", at_least=1.0)


@pytest.mark.robust(at_least=0.0, of="accuracy")
def test_the_nearest_marker_counts(assert_robust, doubts):
    assert_robust("clf.pt", accept_doubt=doubts)


def test_too_much_is_asked_for(assert_robust):
    assert_robust("clf.pt")


@pytest.mark.robust(1.0)
def test_words_without_a_keyword(assert_robust):
    pass


def test_nothing_is_asked_for():
    assert "marked"


@pytest.fixture
def doubts():
    from advkit.evaluation.check import CHECKS
    return tuple(check.name for check in CHECKS)
"""


def ran(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    words = (sys.executable, "-m", "pytest", "-p", "advkit.pytest_plugin", "-p", "no:cacheprovider", *words)
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def test_a_marker_says_what_the_fixture_measures(judged):
    model, data = judged
    save_model(model, "clf.pt")
    np.savez("toy.npz", x=data.images.numpy(), y=data.labels.numpy())
    Path("test_mine.py").write_text(TESTS, encoding="utf-8")
    done = ran("-q", "--strict-markers", "--junitxml=junit.xml", "test_mine.py")
    cases = {case.get("name"): case for case in ElementTree.parse("junit.xml").getroot().iter("testcase")}
    outcomes = {
        name: [child.tag for child in case if child.tag != "properties"] for name, case in cases.items()
    }
    assert outcomes == {
        "test_the_nearest_marker_counts": [],
        "test_too_much_is_asked_for": ["failure"],
        "test_words_without_a_keyword": ["error"],
        "test_nothing_is_asked_for": [],
    }, done.stdout + done.stderr
    found = {
        one.get("name"): one.get("value") for one in cases["test_the_nearest_marker_counts"].iter("property")
    }
    assert found["model_hash"] == model.hash and 0 <= float(found["robust_accuracy"]) <= 1
    low, high = (float(end) for end in found["robust_interval"].strip("[]").split(","))
    assert low <= float(found["robust_accuracy"]) <= high
