"""Several threat models at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.training import several
from advkit.training.objective import Batch
from advkit.training.score import counts

THREATS = [Threat("linf", 0.1), Threat("l2", 0.8)]


def batch_of(data, n=16, step=5):
    x, y = data.batch(torch.arange(n))
    return x, y, Batch(data.ids[:n], step, 10, seed=3)


def test_the_average_is_the_mean_of_all_gradients(make, objective, digits):
    wanted, (x, y, batch) = objective("pgd", steps=2, awp=0.01), batch_of(digits)
    models = [make() for _ in range(3)]
    loss, logits = several.gradients(wanted, models[0], x, y, batch, THREATS, "average")
    alone = [
        wanted.gradients(model, x, y, replace(batch, threat=one))
        for model, one in zip(models[1:], THREATS, strict=True)
    ]
    assert loss.item() == pytest.approx(sum(told[0].item() for told in alone) / 2)
    for mean, *each in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(mean.grad, (each[0].grad + each[1].grad) / 2, atol=1e-7)
    right = [told[1].argmax(1) == y for told in alone]
    assert torch.equal(logits.argmax(1) == y, right[0] & right[1])  # shown is the worst of each image


def test_one_at_random_is_another_for_other_batches_and_one_for_all_replays(make, objective, digits):
    x, y, batch = batch_of(digits)

    def drawn(wanted, steps):
        seen = []
        wanted.gradients = lambda model, x, y, batch: seen.append(batch.threat)
        for step in range(steps):
            several.gradients(wanted, make(), x, y, replace(batch, step=step), THREATS, "random")
        return seen

    picks = drawn(objective("pgd"), 30)
    assert 5 < picks.count(THREATS[0]) < 25
    replayed = drawn(objective("free", replays=3), 30)
    assert replayed[::3] == replayed[1::3] == replayed[2::3] == picks[:10]


def test_scores_count_what_withstands_all(make, digits):
    model = make().eval()
    parameters = {"steps": 2}
    data = digits.limit(30)
    data = replace(data, labels=model(data.batch(torch.arange(30))[0]).argmax(1))
    each = [counts(model, data, [one], parameters=parameters, seed=0)[1] for one in THREATS]
    clean, both = counts(model, data, THREATS, parameters=parameters, seed=0)
    assert clean == 30 and 0 < both <= min(each)
    assert counts(model, data, THREATS[::-1], parameters=parameters, seed=0) == (clean, both)
    assert counts(model, data, [], parameters=parameters, seed=0)[0] == 30


@pytest.mark.parametrize(
    ("name", "threats", "union"),
    [
        ("pgd", [], "max"),
        ("standard", THREATS, "max"),
        ("free", THREATS, "max"),
        ("pgd", [Threat("l2", 1), Threat("l2", 2)], "max"),
        ("fgsm", [*THREATS, Threat("l1", 1)], "random"),
    ],
)
def test_misfits(name, threats, union, objective):
    with pytest.raises(ConfigError):
        several.refuse_misfits(objective(name), threats, union)
