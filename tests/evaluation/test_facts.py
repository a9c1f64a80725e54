"""Decisions follow from facts, never from what is written for people."""

import json

import pytest

import advkit
from advkit.core.threat import Threat
from advkit.evaluation.result import EvaluationResult
from advkit.models.model import Model


def test_a_card_that_speaks_of_randomised_smoothing_does_not_make_a_model_random(judged):
    model, data = judged
    noted = Model(model.network, model.card.model_copy(update={"notes": "trained for randomised smoothing"}))
    plain, spoken = (
        advkit.evaluate(one, data, Threat("linf", 0.03), "pgd", parameters={"pgd": {"steps": 5}})
        for one in (model, noted.eval())
    )
    assert spoken.notes == ("trained for randomised smoothing",) and plain.notes == ()
    assert (spoken.verdicts, spoken.checks) == (plain.verdicts, plain.checks)
    assert (spoken.forwards, spoken.backwards) == (plain.forwards, plain.backwards)


@pytest.mark.parametrize(
    ("remedy", "flags"),
    [("attack harder: --attack cascade", "--attack cascade"), ("give the logits: leave out a layer", "")],
)
def test_results_whose_remedies_had_flags_in_their_text_are_read(judged, remedy, flags):
    values = advkit.evaluate(*judged, Threat("linf", 0.03), "fgsm").as_values()
    check = {"name": "effort", "verdict": "doubt", "detail": "seen", "remedy": remedy}
    old = {**values, "version": 4, "checks": [check]}
    (read,) = EvaluationResult.from_json(json.dumps(old)).checks
    assert (read.remedy, read.flags) == (remedy, flags)
