"""What attacks climb, beside formulas in NumPy: few classes, ties, huge and infinite logits."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp, softmax

from advkit.attacks.loss import ATTACK_LOSSES
from advkit.attacks.perturb import perturb
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat


def formula(name, z, label, aim):
    """Of one row of logits, in float64."""
    at = label if aim is None else aim
    others, top = np.delete(z, at), np.sort(z)[::-1]
    if name == "ce":
        return log_softmax(z)[at] * (-1 if aim is None else 1)
    if name == "log-odds":
        return (logsumexp(others) - z[at]) * (1 if aim is None else -1)
    if name == "probability-margin":
        p = softmax(z)
        return (np.delete(p, at).max() if aim is None else p[aim]) - p[label]
    if name == "margin":
        return (others.max() - z[at]) * (1 if aim is None else -1)
    toward = others.max() if aim is None else z[aim]
    if name == "logit-difference":
        return toward - z[label]
    return (toward - z[label]) / (top[0] - (top[2] if aim is None else (top[2] + top[3]) / 2) + 1e-12)


@pytest.mark.parametrize("name", [entry.name for entry in ATTACK_LOSSES])
@given(
    st.lists(st.lists(st.integers(-40, 40), min_size=7, max_size=7), min_size=3, max_size=3),
    st.sampled_from([2, 3, 4, 7]),
    st.sampled_from([0.25, 1.0, 1e4, 1e30]),
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1)),
    st.booleans(),
)
@example([[0, 5, 5, 5, 5, 5, 5]] * 3, 7, 1.0, (0, 0, 0), False)  # no spread: dlr keeps its sign
@settings(max_examples=60)
def test_values_are_those_of_the_formula(name, rows, classes, scale, label, lost):
    """Whole numbers make ties frequent. A class may be impossible."""
    logits = torch.tensor(rows)[:, :classes].float() * scale
    if lost and classes > 2 and name != "dlr":
        logits[:, -1] = -torch.inf
    label = torch.tensor(label)
    for aim in (None, 1 - label):
        needed = 2 if name != "dlr" else 3 if aim is None else 4
        if classes < needed:
            with pytest.raises(ConfigError, match=str(needed)):
                ATTACK_LOSSES.get(name)(logits, label, aim)
            continue
        z = logits.double().numpy()
        wanted = [formula(name, z[i], int(label[i]), None if aim is None else int(aim[i])) for i in range(3)]
        got = ATTACK_LOSSES.get(name)(logits, label, aim)
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got.double().numpy(), wanted, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("name", [entry.name for entry in ATTACK_LOSSES])
def test_climbing_a_loss_leads_where_it_should(name):
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0, -3.0], [0.0, 3.0, 5.0, 1.0, 2.0]])
    label, loss, rows = torch.tensor([0, 1]), ATTACK_LOSSES.get(name), torch.arange(2)
    for aim, up in ((None, -1), (torch.tensor([3, 4]), 1)):
        at = logits.clone().requires_grad_(True)
        values = loss(at, label, aim)
        (grad,) = torch.autograd.grad(values.sum(), at)
        assert (up * grad[rows, label if aim is None else aim] > 0).all()
        assert (loss(logits + 0.01 * grad, label, aim) > values).all()
        if name == "dlr":  # it does not see scale and shift
            assert torch.allclose(loss(7 * logits - 3, label, aim), values)


@pytest.mark.parametrize("name", ["margin", "logit-difference", "probability-margin"])
def test_one_class_leads_nowhere_and_more_dimensions_are_rows_of_rows(name):
    loss = ATTACK_LOSSES.get(name)
    with pytest.raises(ConfigError):
        loss(torch.zeros(2, 1), torch.zeros(2).long())
    logits, label = torch.arange(24.0).view(2, 3, 4).sin(), torch.tensor([[0, 1, 2], [3, 2, 1]])
    for aim in (None, (label + 1) % 4):
        flat = loss(logits.flatten(0, 1), label.flatten(), None if aim is None else aim.flatten())
        assert torch.equal(loss(logits, label, aim), flat.view(2, 3))


def test_too_few_classes_are_refused_before_a_search(linear):
    model, data = linear
    with pytest.raises(ConfigError, match="margin"):
        perturb(model, data.images, data.labels, Threat("linf", 0.1), "apgd-dlr")
