from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advkit.core import rng
from advkit.core.errors import DataError, ModelError
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
        (lambda logits: logits[:, :9], r"\b9\b"),
        (lambda logits: logits[:3], r"\(3, 10\).* 6\b"),
        (lambda logits: logits[:, :, None], r"\(6, 10, 1\)"),
        (lambda logits: logits[:, 0], r"\(6,\)"),
        (lambda logits: (logits, logits), "tuple"),
        (lambda logits: logits / 0, "infinite"),
        (lambda logits: logits * float("nan"), "NaN"),
        (lambda logits: logits.softmax(1), "--outputs probabilities"),
        (lambda logits: logits + torch.randn_like(logits), "--allow-random"),
        (lambda logits: logits - logits.mean(0), "batch"),
        (lambda logits: logits @ logits, r"6x1x8x8.*mat1 and mat2"),
    ],
)
def test_faults_are_named(change: Callable[[Tensor], Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        inspect_classifier(of(change), IMAGES, 10)
    assert "\n" not in str(caught.value)


SUMS = {1.0: True, 1 + 0.9e-4: True, 1 - 0.9e-4: True, 1 + 1.2e-4: False, 1 - 1.2e-4: False}


@pytest.mark.parametrize("only_decisions", [False, True])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("total", SUMS)
@pytest.mark.parametrize("row", [[0.25, 0.75], [1.0, 0.0], [1.25, -0.25]])
def test_probabilities_are_told_from_logits(
    row: list[float], total: float, declared: bool, only_decisions: bool
) -> None:
    outputs = torch.tensor([[0.5, 0.5], row], dtype=torch.double)
    outputs[1, 0] += total - 1
    probable = SUMS[total] and min(row) >= 0
    card = {"preprocessing": PROBABILITIES} if declared else {}
    model = of(lambda logits: outputs[: len(logits)], **card)
    # Declared ones come as logarithms, in which nothing is negative any more.
    accepted = probable if declared else only_decisions or not probable
    with contextlib.nullcontext() if accepted else pytest.raises(ModelError):
        assert inspect_classifier(model, IMAGES[:2], 2, only_decisions=only_decisions).notes == ()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [2.0**-9, 1.0, 64.0])
@pytest.mark.parametrize("part", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("sign", [1, -1])
def test_how_far_answers_may_be_apart(dtype: torch.dtype, scale: float, part: float, sign: int) -> None:
    """Two passes: 8 roundings of the largest output, or of 1. Half the batch: a thousandth, if it is more."""
    rounding = 8 * torch.finfo(dtype).eps
    for pass_number, least in ((1, rounding), (2, max(1e-3, rounding))):
        seen = []

        def answer(
            logits: Tensor, seen: Any = seen, odd: int = pass_number, apart: float = part * least
        ) -> Tensor:
            seen.append(len(logits))
            outputs = torch.zeros(len(logits), 10, dtype=dtype)
            outputs[1:, 0] = -scale  # the largest by its amount
            if len(seen) == odd + 1:
                outputs[0, 3] = sign * apart * max(scale, 1.0)
            return outputs

        # Of these, only double can hold a thousandth exactly enough to lie on the edge.
        exact = least == rounding or dtype == torch.float64
        close = part < 1 or (part == 1 and exact)
        with contextlib.nullcontext() if close else pytest.raises(ModelError):
            assert inspect_classifier(of(answer), IMAGES[:5], 10).notes == ()
        assert seen == ([5, 5, 3] if close or pass_number == 2 else [5, 5])


@pytest.mark.parametrize("n", range(1, 7))
def test_half_of_the_batch_is_asked_alone(n: int) -> None:
    seen: list[int] = []

    def answer(logits: Tensor) -> Tensor:
        seen.append(len(logits))
        return logits

    assert inspect_classifier(of(answer), IMAGES[:n], None).notes == ()
    assert seen == [n, n, (n + 1) // 2]


@pytest.mark.parametrize("images", [torch.rand(2, 1, 9, 8), torch.rand(2, 3, 8, 8)])
def test_images_of_another_shape(images: Tensor) -> None:
    channels, height, width = images.shape[1:]
    with pytest.raises(DataError, match=rf"\b{channels}x{height}x{width}\b.*\b1x8x8\b"):
        inspect_classifier(of(lambda logits: logits), images, 10)


def test_a_randomised_model_may_be_allowed() -> None:
    noisy = of(lambda logits: logits + torch.randn_like(logits), notes="assumed").train()
    facts = inspect_classifier(noisy, IMAGES, 10, allow_random=True)
    *found, note = facts.notes
    assert not facts.deterministic and found == [
        "assumed",
        "the model was in train mode; it is run in eval mode",
    ]
    with rng.scope("cpu", 0, "inspect"):
        first, second = (noisy(IMAGES) for _ in range(2))
    assert f"differ by up to {(first - second).abs().max():.3g}" in note


def test_batch_norm_that_stays_in_train_mode_is_found() -> None:
    class Stubborn(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Stubborn:
            return super().train(True)  # type: ignore[return-value]

    with pytest.raises(ModelError):
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
