from __future__ import annotations

import contextlib
from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from advkit import Threat, perturb
from advkit.core import rng
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.models.card import ModelCard, Preprocessing
from advkit.models.inspect import ModelFacts, inspect_classifier
from advkit.models.load import wrap
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
    facts = inspect_classifier(model, IMAGES, 10)
    answers = model.answers
    assert facts == ModelFacts(deterministic=True, notes=(), outputs=10)
    inspect_classifier(model, IMAGES, 10)
    assert answers == pytest.approx(model.answers)
    assert inspect_classifier(model, IMAGES[:1], 10).deterministic


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda logits: logits[:, :9], "9 outputs"),
        (lambda logits: logits[:3], r"shape \(3, 10\) for 6 images"),
        (lambda logits: logits[:, :, None, None].expand(6, 10, 2, 1), r"shape \(6, 10, 2, 1\).*flatten"),
        (lambda logits: logits[:, 0], r"shape \(6,\)"),
        (lambda logits: logits[:, :1], r"shape \(6, 1\)"),
        (lambda logits: (logits, 2 * logits), r"returns tuple .*\[0\]"),
        (lambda logits: {"a": logits, "b": -logits}, r"returns dict .*\['a'\]"),
        (lambda logits: ("text", None), "no tensors"),
        (lambda logits: logits.argmax(1), "int64"),
        (lambda logits: (10 * logits).int(), "int32"),
        (lambda logits: logits / 0, "NaN or infinite logits"),
        (lambda logits: logits * float("nan"), "NaN or infinite logits"),
        (lambda logits: logits.softmax(1), "pass --outputs probabilities"),
        (lambda logits: logits + torch.randn_like(logits), "randomised.*--allow-random"),
        (lambda logits: logits - logits.mean(0), "depends on the rest of its batch"),
        (lambda logits: -logits if len(logits) == 1 else logits, "depends on the rest of its batch"),
        (lambda logits: logits @ logits, r"fails on 6x1x8x8 images \(.*mat1 and mat2"),
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
        facts = inspect_classifier(model, IMAGES[:2], 2, only_decisions=only_decisions)
        assert [note.code for note in facts.notes] == ["no-gradients"] * (not only_decisions)
        assert facts.differentiable == only_decisions


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
            notes = inspect_classifier(of(answer), IMAGES[:5], 10).notes
            assert [note.code for note in notes] == ["no-gradients"]
        assert seen == ([5, 5, 3, 1, 1] if close else [5, 5, 3] if pass_number == 2 else [5, 5])


@pytest.mark.parametrize("n", range(1, 7))
def test_half_of_the_batch_and_one_image_are_asked_alone(n: int) -> None:
    seen: list[int] = []

    def answer(logits: Tensor) -> Tensor:
        seen.append(len(logits))
        return logits

    assert inspect_classifier(of(answer), IMAGES[:n], None).notes == ()
    assert seen == [n, n, *([(n + 1) // 2] if n > 2 else []), 1, 1]


def test_a_network_need_not_take_a_single_image() -> None:
    def several(logits: Tensor) -> Tensor:
        assert len(logits) > 1
        return logits

    facts = inspect_classifier(of(several), IMAGES, 10)
    assert (facts.deterministic, facts.notes) == (True, ())


@pytest.mark.parametrize("images", [torch.rand(2, 1, 9, 8), torch.rand(2, 3, 8, 8)])
def test_images_of_another_shape(images: Tensor) -> None:
    channels, height, width = images.shape[1:]
    with pytest.raises(DataError, match=rf"\b{channels}x{height}x{width}\b.*\b1x8x8\b"):
        inspect_classifier(of(lambda logits: logits), images, 10)


def test_a_randomised_model_may_be_allowed() -> None:
    noisy = of(lambda logits: logits + torch.randn_like(logits), notes="assumed").train()
    facts = inspect_classifier(noisy, IMAGES, 10, allow_random=True)
    *found, note = facts.notes
    assert not facts.deterministic and [one.code for one in found] == ["card", "train-mode"]
    assert found[0].text == "assumed"
    with rng.scope("cpu", 0, "inspect"):
        first, second = (noisy(IMAGES) for _ in range(2))
    assert f"differ by up to {(first - second).abs().max():.3g}" in note.text


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


Named = namedtuple("Named", ["logits", "auxiliary"])
OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "pair": (lambda y: (y, y), lambda r: r[0]),
    "list": (lambda y: [y], lambda r: r[0]),
    "features first": (lambda y: (torch.cat([y, y], 1), y), lambda r: r[1]),
    "dict": (lambda y: {"loss": y.sum(), "out": y}, lambda r: r["out"]),
    "logits among others": (lambda y: {"hidden": 2 * y, "logits": y}, lambda r: r["logits"]),
    "named": (lambda y: Named(y, -y), lambda r: r.logits),
    "object": (lambda y: SimpleNamespace(logits=y, hidden=-y), lambda r: r.logits),
    "nested": (lambda y: {"heads": [y, y.sum()]}, lambda r: r["heads"][0]),
    "maps of one pixel": (lambda y: y[:, :, None, None], lambda r: r[:, :, 0, 0]),
    "maps in a tuple": (lambda y: (y[:, :, None, None],), lambda r: r[0][:, :, 0, 0]),
}


@pytest.mark.parametrize("form", OUTPUTS)
def test_outputs_whose_meaning_is_clear_are_read_and_said(form: str) -> None:
    change, right = OUTPUTS[form]
    model = of(change, classes=10)
    facts = inspect_classifier(model, IMAGES, 10)
    assert [note.code for note in facts.notes] == ["output-unwrapped"]
    assert torch.equal(model(IMAGES), right(model.network(IMAGES)))
    # Twice, on another batch, and in a graph that an attack searches on.
    assert inspect_classifier(model, IMAGES, 10) == facts
    assert model(IMAGES[:3]).shape == (3, 10)
    attacked = perturb(model, IMAGES, torch.arange(6), Threat("linf", 0.1), parameters={"steps": 2})
    assert [note.code for note in attacked.notes] == ["output-unwrapped"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("declared", [False, True])
def test_one_number_is_that_of_the_second_of_two_classes(declared: bool, flat: bool) -> None:
    def change(logits: Tensor) -> Tensor:
        one = (logits.sum(1) if flat else logits.sum(1, keepdim=True)) - 5  # never from 0 to 1 by chance
        return one.sigmoid() if declared else one

    model = of(change, **({"preprocessing": PROBABILITIES} if declared else {}))
    assert inspect_classifier(model, IMAGES, 2).notes[0].code == "output-unwrapped"
    two, one = model(IMAGES), model.network.dense(IMAGES.flatten(1)).sum(1) - 5
    torch.testing.assert_close(two[:, 1] - two[:, 0], one)
    with pytest.raises(ModelError, match="classes=2"):
        inspect_classifier(model, IMAGES, None)
    for probability in (lambda one: one.sigmoid(), lambda one: one.sigmoid().ceil()):  # of 1, too
        with pytest.raises(ModelError, match="sigmoid"):
            inspect_classifier(of(lambda logits, p=probability: p(logits[:, :1])), IMAGES, 2)


@pytest.mark.parametrize("near", [False, True])
def test_one_logit_that_first_lies_from_0_to_1_is_no_probability(near: bool) -> None:
    """Neither where the network refuses most of what lies far from images."""

    class Near(Made):
        def forward(self, x: Tensor) -> Any:
            assert not near or float(x.abs().max()) < 20
            return super().forward(x)

    network = Near(lambda logits: 0.5 + logits[:, :1] / 2)
    one, model = network(IMAGES), of(network)
    assert one.min() > 0 and one.max() < 1
    assert inspect_classifier(model, IMAGES, 2).notes[0].code == "output-unwrapped"
    assert torch.equal(model(IMAGES)[:, 1:], one)


class InPlace(nn.Module):
    """Normalises its input in place."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.dense, self.how = nn.Linear(64, 10), how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "in place":
            x.sub_(0.5).div_(0.5)
        elif self.how == "beside autograd":
            x.data.sub_(0.5).div_(0.5)
        elif self.how == "without effect":
            x.clamp_(0, 1)
            x = (x - 0.5) / 0.5
        else:
            x = (x - 0.5) / 0.5
        return cast(Tensor, self.dense(x.flatten(1)))


@pytest.mark.parametrize("attack", ["pgd", "square"])
@pytest.mark.parametrize("how", ["in place", "beside autograd", "without effect"])
def test_a_network_that_changes_its_input_is_given_its_own(how: str, attack: str) -> None:
    honest, network = InPlace("never").eval(), InPlace(how).eval()
    network.load_state_dict(honest.state_dict())
    labels = honest(IMAGES).argmax(1)
    given = IMAGES.clone()
    threat, few = Threat("linf", 0.3), {"steps" if attack == "pgd" else "queries": 20}
    right = perturb(honest, IMAGES, labels, threat, attack, parameters=few)
    found = perturb(network, given, labels, threat, attack, parameters=few)
    assert torch.equal(given, IMAGES) and torch.equal(found.success, right.success)
    assert [note.code for note in found.notes] == ["normalisation-assumed", "input-copied"]  # type: ignore[attr-defined]
    if how != "beside autograd":
        with torch.no_grad():
            assert torch.equal(honest(found.x).argmax(1) != labels, found.success)


def test_a_network_is_given_contiguous_images() -> None:
    class Viewing(Made):
        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.dense(x.view(len(x), -1)))

    model = of(Viewing(lambda logits: logits), shape=(4, 4, 4))
    images = IMAGES.view(6, 4, 4, 4)
    for strided in (images.to(memory_format=torch.channels_last), images.flip(0).transpose(2, 3)):
        inspect_classifier(model, strided, 10)
        assert torch.equal(model(strided), model(strided.contiguous()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_network_of_another_precision_is_given_its_own_type(dtype: torch.dtype) -> None:
    network = Made(lambda logits: logits).to(dtype)
    model = wrap(network, shape=SHAPE)
    codes = [note.code for note in inspect_classifier(model, IMAGES, 10).notes]
    assert "weights-converted" in codes
    assert torch.equal(model(IMAGES), network(IMAGES.to(dtype)).float())
    perturb(network, IMAGES, torch.arange(6), Threat("linf", 0.1), parameters={"steps": 2})


def test_what_a_users_network_raises_midway_names_their_line() -> None:
    calls: list[int] = []

    def fragile(logits: Tensor) -> Tensor:
        calls.append(len(logits))
        if len(calls) > 6:
            raise ValueError("too warm today")
        return logits

    with pytest.raises(
        ModelError, match=r"test_model_inspect\.py:\d+ in fragile: ValueError: too warm"
    ) as caught:
        perturb(Made(fragile), IMAGES, torch.arange(6), Threat("linf", 0.1), "square")
    assert isinstance(caught.value.__cause__, ValueError)
    for error in (MemoryError(), ConfigError("of our own")):

        def failing(logits: Tensor, error: Exception = error) -> Tensor:
            raise error

        with pytest.raises(type(error)):
            of(failing)(IMAGES)
