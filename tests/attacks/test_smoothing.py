"""Auto-PGD with gradients that are averaged over the neighbourhood."""

import pytest
import torch
from torch import nn

from advkit import perturb
from advkit.attacks.perturb import make
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat

SMOOTH = {"steps": 20, "samples": 5, "smoothing": 0.5}


class Rippled(nn.Module):
    """The mean of the values decides, and hides under a sine of a fifth of eps."""

    def forward(self, x):
        score = (x + 0.01 * (300 * x).sin()).flatten(1).mean(1) - 0.57
        return torch.stack([torch.zeros_like(score), score], 1)


def attacked(model, norm, parameters, batch_size=None):
    threat = Threat(norm, {"linf": 0.1, "l2": 0.6, "l1": 5.0}[norm])
    x = 0.3 + 0.4 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(12, dtype=torch.int64)
    assert (model(x).argmax(1) == label).all()
    found = perturb(model, x, label, threat, "apgd", parameters=parameters, batch_size=batch_size)
    assert threat.contains(found.x, x).all()
    return found


def test_it_finds_what_ripples_hide():
    """At the same cost."""
    plain = attacked(Rippled(), "linf", {"steps": 20, "restarts": 5})
    smooth = attacked(Rippled(), "linf", SMOOTH)
    assert smooth.success.sum() >= plain.success.sum() + 3
    assert (smooth.backwards <= 20 * 5).all()


@pytest.mark.parametrize("name", ["apgd", "apgd-ce", "apgd-dlr", "apgd-t"])
def test_smoothing_with_nothing_to_average_is_refused(name):
    with pytest.raises(ConfigError, match="samples"):
        make(name, Threat("linf", 0.1), {"smoothing": 0.5})


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_what_it_finds_does_not_depend_on_the_batch(norm):
    whole, single = (attacked(Rippled(), norm, SMOOTH, size) for size in (12, 1))
    assert torch.equal(whole.x, single.x) and torch.equal(whole.success, single.success)


def test_on_a_linear_loss_averaging_changes_nothing():
    with torch.no_grad():
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        model[1].weight.copy_(torch.stack([torch.zeros(64), torch.linspace(-1, 1, 64)]))
        model[1].bias.copy_(torch.tensor([0.0, -9.0]))
    plain, smooth = (attacked(model, "linf", each) for each in ({"steps": 20}, SMOOTH))
    assert not smooth.success.any() and torch.allclose(plain.x, smooth.x, atol=1e-6)
