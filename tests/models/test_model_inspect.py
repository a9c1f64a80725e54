from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advkit.errors import DataError, ModelError
from advkit.models.card import ModelCard, Preprocessing
from advkit.models.inspect import ModelFacts, inspect_classifier
from advkit.models.model import Model
from advkit.models.network import build

SHAPE = (1, 8, 8)
IMAGES = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))


class Made(nn.Module):
    """What the test makes of honest logits."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.dense = nn.Linear(64, 10)
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.dense(x.flatten(1)))


def of(change: Callable[[Tensor], Any] | nn.Module, **card: Any) -> Model:
    network = change if isinstance(change, nn.Module) else Made(change)
    facts = {"role": "classifier", "architecture": "tests:Made", "shape": SHAPE, **card}
    return Model(network, ModelCard(**facts)).eval()


PROBABILITIES = Preprocessing(outputs="probabilities")


@pytest.mark.parametrize(
    "model",
    [
        of(lambda logits: logits),
        of(lambda logits: logits * 1e6),
        of(lambda logits: logits.log_softmax(1)),
        of(lambda logits: logits.bfloat16()),
        of(lambda logits: logits.softmax(1), preprocessing=PROBABILITIES),
        of(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 10))),
    ],
    ids=["logits", "large", "log-softmax", "bfloat16", "declared probabilities", "norm and dropout"],
)
def test_nothing_is_said_of_an_honest_model(model: Model) -> None:
    assert inspect_classifier(model, IMAGES, 10) == ModelFacts(deterministic=True, notes=())
    assert inspect_classifier(model, IMAGES[:1], 10).deterministic


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda logits: logits[:, :9], "tells 9 classes apart but the data has 10"),
        (lambda logits: logits[:3], r"shape \(3, 10\) for 6 images"),
        (lambda logits: logits[:, :, None], r"shape \(6, 10, 1\)"),
        (lambda logits: logits[:, 0], r"shape \(6,\)"),
        (lambda logits: (logits, logits), "returns tuple"),
        (lambda logits: logits / 0, "NaN or infinite logits"),
        (lambda logits: logits * float("nan"), "NaN or infinite logits"),
        (lambda logits: logits.softmax(1), "pass --outputs probabilities"),
        (lambda logits: logits + torch.randn_like(logits), "randomised.*--allow-random"),
        (lambda logits: logits - logits.mean(0), "depends on the rest of its batch"),
        (lambda logits: logits @ logits, r"fails on 6x1x8x8 images \(.*mat1 and mat2"),
    ],
)
def test_faults_are_named(change: Callable[[Tensor], Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        inspect_classifier(of(change), IMAGES, 10)
    assert "\n" not in str(caught.value)


def test_logits_that_were_called_probabilities() -> None:
    with pytest.raises(ModelError, match="leave --outputs out"):
        inspect_classifier(of(lambda logits: logits, preprocessing=PROBABILITIES), IMAGES, 10)


@pytest.mark.parametrize("images", [torch.rand(2, 1, 9, 8), torch.rand(2, 3, 8, 8)])
def test_images_of_another_shape(images: Tensor) -> None:
    with pytest.raises(DataError, match="but the model takes 1x8x8"):
        inspect_classifier(of(lambda logits: logits), images, 10)


def test_a_randomised_model_may_be_allowed() -> None:
    noisy = of(lambda logits: logits + torch.randn_like(logits))
    facts = inspect_classifier(noisy, IMAGES, 10, allow_random=True)
    assert not facts.deterministic and len(facts.notes) == 1


def test_batch_norm_that_stays_in_train_mode_is_found() -> None:
    class Stubborn(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Stubborn:
            return super().train(True)  # type: ignore[return-value]

    with pytest.raises(ModelError, match="batch norm in train mode"):
        inspect_classifier(of(nn.Sequential(nn.Flatten(), Stubborn(64), nn.Linear(64, 10))), IMAGES, 10)


def test_the_model_and_the_random_state_are_left_as_found() -> None:
    model = of(build("resnet18-cifar", shape=SHAPE, classes=10, config={"width": 2})).train()
    model.network.bn1.eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    assert len(inspect_classifier(model, IMAGES, 10).notes) == 1
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ModelError):
        inspect_classifier(model, IMAGES, 9)
    assert modes == [module.training for module in model.modules()]


def test_what_the_loader_assumed_is_passed_on() -> None:
    assert inspect_classifier(of(lambda logits: logits, notes="assumed"), IMAGES, 10).notes == ("assumed",)
