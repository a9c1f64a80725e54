"""Attacks that search on another model."""

import pytest
import torch
from torch import nn

from advkit import evaluate, rng
from advkit.attacks.attack import ATTACKS
from advkit.data.load import as_data
from advkit.errors import ConfigError, ModelError
from advkit.threat import Threat

LINF = Threat("linf", 0.05)


def linear(seed, classes=3):
    with rng.scope("cpu", seed, "linear"):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).eval()


@pytest.fixture
def model():
    return linear(0)


@pytest.fixture
def data(model):
    x = rng.uniform(torch.arange(40), (1, 8, 8))
    with torch.no_grad():
        return as_data((x, model(x).argmax(1)))


def test_gradients_come_from_the_surrogate_and_verdicts_from_the_model(model, data):
    own = evaluate(model, data, LINF, attack="fgsm")
    near = linear(0)
    with torch.no_grad():
        near[1].weight += 0.3 * near[1].weight.std() * linear(5)[1].weight.sign()
    transfer = evaluate(
        model, data, LINF, attack="fgsm,square", surrogate=near, parameters={"square": {"queries": 20}}
    )
    other = evaluate(model, data, LINF, attack="fgsm", surrogate=linear(7))
    broken = [result.stages[0].broken for result in (own, transfer, other)]
    assert broken[0] >= broken[1] > broken[2]
    assert [stage.transferred for stage in transfer.stages] == [True, False]
    assert transfer.surrogate_hash is not None and own.surrogate_hash is None
    assert own.stages[0].transferred is False
    x = evaluate(model, data, LINF, attack="fgsm", surrogate=near, keep=True).adversarial
    with torch.no_grad():
        assert int((model(x).argmax(1) != data.labels).sum()) == broken[1]
    assert LINF.contains(x, data.images).all()


def test_the_checks_know_that_no_gradient_of_the_model_was_seen(model, data):
    small = Threat("linf", 0.001)
    sure, unsure = (
        {check.name: check for check in evaluate(model, data, small, attack="pgd", surrogate=other).checks}
        for other in (None, linear(7))
    )
    assert sure["white-box"].verdict == "ok"
    assert unsure["white-box"].verdict == "doubt"
    assert "the others saw those of a surrogate" in unsure["white-box"].detail
    result = evaluate(model, data, small, attack="pgd", surrogate=linear(7))
    assert all(verdict.margin is None for verdict in result.verdicts)  # those of the surrogate mean nothing
    assert any("surrogate" in note for note in result.notes)


def test_the_surrogate_stays_as_it_is(model, data):
    other = linear(7).train()
    before = other[1].weight.clone()
    evaluate(model, data, LINF, attack="pgd", surrogate=other, parameters={"pgd": {"steps": 2}})
    assert other.training and torch.equal(other[1].weight, before)
    assert other[1].weight.requires_grad and other[1].weight.grad is None


def test_what_cannot_be_is_refused(model, data, monkeypatch):
    with pytest.raises(ModelError, match="the surrogate tells 4 classes apart and the model 3"):
        evaluate(model, data, LINF, attack="pgd", surrogate=linear(1, 4))
    with pytest.raises(ConfigError, match="none of the attacks sees gradients"):
        evaluate(model, data, LINF, attack="noise,square", surrogate=linear(1))
    with pytest.raises(ConfigError, match="leave --bpda or --surrogate out"):
        evaluate(model, data, LINF, attack="pgd", bpda=("1",), surrogate=linear(1))
    with pytest.raises(ConfigError, match="cannot search on a surrogate"), monkeypatch.context() as patch:
        patch.setattr(ATTACKS.get("pgd"), "alone", True)  # as those of other libraries are
        evaluate(model, data, LINF, attack="pgd", surrogate=linear(1))
    with pytest.raises(ModelError, match="nobody"):
        evaluate(model, data, LINF, attack="pgd", surrogate="nobody")
