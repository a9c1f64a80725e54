"""A layer that hides the gradient stops an attack until it is passed straight through."""

import pytest
import torch
from torch import nn

import advkit
from advkit.errors import ConfigError
from advkit.evaluation.plan import Evaluation
from advkit.runs import RunFolder
from advkit.threat import Threat

THREAT = Threat("linf", 0.06)


class Levels(nn.Module):
    def forward(self, x):
        return (x * 15).round() / 15


@pytest.fixture
def stepped(judged):
    """(model, images, labels): the judged network behind 4 bits of input."""
    model, data = judged
    network = nn.Sequential(Levels(), model.network).eval()
    with torch.no_grad():
        return network, data.images, network(data.images).argmax(1)


def run(stepped, **more):
    model, x, y = stepped
    return advkit.evaluate(model, (x, y), THREAT, "pgd", parameters={"pgd": {"steps": 10}}, **more)


def test_what_stood_only_for_want_of_a_gradient_falls(stepped):
    model, _, y = stepped
    hidden = run(stepped)
    seen = run(stepped, bpda=["0"], keep=True)
    assert hidden.robust_accuracy > 0.7
    assert seen.robust_accuracy < 0.3
    assert "straight through 0" in " ".join(seen.notes)
    with torch.no_grad():  # judged by the model that was given
        right = model(seen.adversarial).argmax(1) == y
    assert float(right.float().mean()) == pytest.approx(seen.robust_accuracy)
    assert [type(layer) for layer in model] == [Levels, type(model[1])]


def test_it_is_another_evaluation_in_the_ledger(stepped, tmp_path):
    def begin():
        return RunFolder.open("attack", "toy", Evaluation(model="toy"), tmp_path / "run")

    with begin() as folder:
        run(stepped, run=folder)
    with begin() as folder, pytest.raises(ConfigError, match="begin with the same plan of attack"):
        run(stepped, bpda=["0"], run=folder)


def test_a_layer_that_is_not_there(stepped):
    with pytest.raises(ConfigError, match="no layer 'levels'; its layers: 0, 1"):
        run(stepped, bpda=["levels"])


def test_all_layers_that_hide_it_are_named_at_once(judged):
    model, data = judged
    twice = nn.Sequential(Levels(), Levels(), model.network).eval()
    with torch.no_grad():
        labels = twice(data.images).argmax(1)
    result = run((twice, data.images, labels), bpda=["1"])
    assert result.checks[0].name == "cut-gradient"
    assert result.checks[0].flags == "--bpda 0,1"
