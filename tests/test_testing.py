"""``advkit.testing``."""

from __future__ import annotations

import pytest

import advkit
from advkit.testing import assert_robust


def test_a_model_is_as_robust_as_it_is(thirds):
    model, images = thirds
    threat, data = advkit.Threat("linf", 0.01), images(60, 3, "test")
    doubts = tuple(
        check.name
        for check in advkit.evaluate(model, data, threat, "fgsm").checks
        if check.verdict == "doubt"
    )
    how = {"attack": "fgsm", "accept_doubt": doubts}
    found = assert_robust(model, data, threat, at_least=0, **how)
    assert_robust(model, data, threat, at_least=found.interval.low, **how)
    assert_robust(model, data, threat, at_least=found.robust_accuracy, of="accuracy", **how)
    with pytest.raises(AssertionError):
        assert_robust(model, data, threat, at_least=found.robust_accuracy, **how)
    if doubts:
        with pytest.raises(AssertionError):
            assert_robust(model, data, threat, at_least=0, attack="fgsm")
