"""What attacks climb, by hand."""

import math

import pytest
import torch

from advkit.attacks.loss import ATTACK_LOSSES
from advkit.attacks.perturb import perturb
from advkit.errors import ConfigError
from advkit.threat import Threat

LOGITS = torch.tensor([[2.0, 0.0, 1.0, -1.0, -3.0], [0.0, 3.0, 5.0, 1.0, 2.0]])
LABEL = torch.tensor([0, 1])
AIM = torch.tensor([3, 4])


def value(name, aim=None):
    return ATTACK_LOSSES.get(name)(LOGITS, LABEL, aim)


def log_share(row, of):
    return math.log(math.exp(LOGITS[row, of]) / sum(math.exp(z) for z in LOGITS[row]))


@pytest.mark.parametrize(
    ("name", "away", "toward"),
    [
        ("margin", [1 - 2, 5 - 3], [-1 - 2, 2 - 5]),
        ("logit-difference", [1 - 2, 5 - 3], [-1 - 2, 2 - 3]),
        ("ce", [-log_share(0, 0), -log_share(1, 1)], [log_share(0, 3), log_share(1, 4)]),
        # First and third largest: 2 and 0, 5 and 2; third and fourth: 0 and -1, 2 and 1.
        ("dlr", [(1 - 2) / (2 - 0), (5 - 3) / (5 - 2)], [(-1 - 2) / (2 + 0.5), (2 - 3) / (5 - 1.5)]),
    ],
)
def test_values_by_hand(name, away, toward):
    assert value(name).tolist() == pytest.approx(away)
    assert value(name, AIM).tolist() == pytest.approx(toward)


@pytest.mark.parametrize("name", [entry.name for entry in ATTACK_LOSSES])
def test_climbing_a_loss_leads_where_it_should(name):
    loss = ATTACK_LOSSES.get(name)
    for aim in (None, AIM):
        logits = LOGITS.clone().requires_grad_(True)
        values = loss(logits, LABEL, aim)
        (grad,) = torch.autograd.grad(values.sum(), logits)
        rows = torch.arange(2)
        assert values.shape == (2,)
        if aim is None:
            assert (grad[rows, LABEL] < 0).all()
        else:
            assert (grad[rows, AIM] > 0).all()
        assert (loss(LOGITS + 0.01 * grad, LABEL, aim) > values).all()


def test_dlr_does_not_see_scale_and_shift():
    loss = ATTACK_LOSSES.get("dlr")
    for aim in (None, AIM):
        assert torch.allclose(loss(7 * LOGITS - 3, LABEL, aim), loss(LOGITS, LABEL, aim))


def test_too_few_classes_are_refused(linear):
    few = LOGITS[:, :3]
    with pytest.raises(ConfigError, match="4 classes"):
        ATTACK_LOSSES.get("dlr")(few, LABEL, LABEL)
    assert ATTACK_LOSSES.get("dlr")(few, LABEL).isfinite().all()
    for name in ("margin", "logit-difference"):
        with pytest.raises(ConfigError, match="one class"):
            ATTACK_LOSSES.get(name)(LOGITS[:, :1], torch.zeros(2).long())
    model, data = linear
    with pytest.raises(ConfigError, match="use the margin loss"):
        perturb(model, data.images, data.labels, Threat("linf", 0.1), "apgd-dlr")
