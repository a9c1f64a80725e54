"""What people give as a model that is not quite one: an answer, or one sentence."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import advkit
from advkit.core.errors import ModelError, UserError
from advkit.core.modes import leaves_compilation_out
from advkit.models import blame
from advkit.models.blame import backward_pass
from advkit.models.checkpoint import save_model
from advkit.models.inspect import inspect_classifier
from advkit.models.model import contents

LINF = advkit.Threat("linf", 0.2)
SHAPE = (1, 8, 8)
SCALE = nn.Parameter(torch.ones(()))


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return advkit.load_data("digits").batch(torch.arange(12))


def network(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).eval()


class Through(nn.Module):
    """The network, and a function of its logits."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.change = network(), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.inner(x))


class Predicts:
    def predict(self, x: Any) -> Any:
        return x


class Called:
    def __call__(self, x: Any) -> Any:
        return x


NO_MODELS: dict[str, tuple[Any, str]] = {
    "state dict": (network().state_dict(), "load_state_dict"),
    "checkpoint": ({"state_dict": network().state_dict()}, "load_state_dict"),
    "class": (nn.Linear, "Linear"),
    "lambda": (lambda x: x, "BlackBox"),
    "method": (network().forward, "staticmethod"),
    "partial": (functools.partial(network()), "staticmethod"),
    "object": (Called(), "BlackBox"),
    "estimator": (Predicts(), "BlackBox"),
    "nothing": (None, "torch.nn.Module"),
    "number": (3, "torch.nn.Module"),
    "tensor": (torch.zeros(3), "torch.nn.Module"),
    "modules": ([network()], "torch.nn.Module"),
}


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_model_is_told_what_to_give(name: str, images: tuple[Tensor, Tensor]) -> None:
    given, said = NO_MODELS[name]
    x, y = images
    for call in (
        lambda: advkit.load_model(given, shape=SHAPE),
        lambda: advkit.perturb(given, x, y, LINF),
        lambda: advkit.evaluate(given, (x, y), LINF, "pgd"),
        lambda: advkit.smooth(given, 0.1, shape=SHAPE),
    ):
        with pytest.raises(ModelError, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)


def undifferentiable(logits: Tensor) -> Tensor:
    return torch.from_numpy(logits.detach().numpy().copy())


def test_sparse_logits_are_refused(images: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ModelError):
        advkit.evaluate(Through(Tensor.to_sparse), images, LINF, "fgsm", progress=False)


@pytest.mark.parametrize("change", [undifferentiable, torch.detach, lambda z: z.detach() * SCALE])
def test_a_model_without_gradients(change: Callable[[Tensor], Tensor], images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    with pytest.raises(ModelError, match=r"square.*BlackBox"):
        advkit.perturb(Through(change), x, y, LINF)
    black, plain = (advkit.perturb(model, x, y, LINF, "square") for model in (Through(change), network()))
    assert torch.equal(black.x, plain.x)
    assert "no-gradients" in {note.code for note in black.notes} - {note.code for note in plain.notes}
    surrogate = advkit.perturb(Through(change), x, y, LINF, surrogate=network())
    assert surrogate.success.sum() >= black.success.sum()
    result = advkit.evaluate(Through(change), (x, y), LINF, "pgd")
    assert not result.trusted
    flat = advkit.perturb(
        Through(lambda z: z * 0 + torch.arange(10.0)), x, y, LINF
    )  # a gradient of zero is one
    assert "no-gradients" not in {note.code for note in flat.notes}


class _Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise ValueError("no way\nback")


def test_a_backward_pass_that_fails_is_the_models_fault(
    images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = images
    model = Through(_Fails.apply)
    for attack in ("pgd", "fab"):  # by the oracle, and by code that differentiates by itself
        with pytest.raises(ModelError, match=r"test_odd_models\.py:\d+ in backward: ValueError: no way\)"):
            advkit.perturb(model, x, y, LINF, attack)
    assert advkit.perturb(model, x, y, LINF, "square").x.shape == x.shape
    with pytest.raises(UserError, match="as it was"), backward_pass():
        raise UserError("as it was")
    monkeypatch.setattr(blame, "_OURS", (*blame._OURS, __file__))
    with pytest.raises(RuntimeError), backward_pass():  # of our own or PyTorch's code
        torch.zeros(1).backward()


def test_one_logit_of_two_classes(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    odd, one = y % 2, network(1)
    two = nn.Sequential(one, nn.ZeroPad1d((1, 0)))
    for model in (one, nn.Sequential(one, nn.Flatten(0))):
        found = advkit.perturb(model, x, odd, LINF, classes=2)
        assert torch.equal(found.x, advkit.perturb(two, x, odd, LINF).x)
        result = advkit.evaluate(model, (x, odd), LINF, "pgd", classes=2)
        expected = advkit.evaluate(two, (x, odd), LINF, "pgd")
        assert (result.clean_correct, result.robust_correct) == (
            expected.clean_correct,
            expected.robust_correct,
        )
        with pytest.raises(ModelError, match="classes=2"):
            advkit.perturb(model, x, odd, LINF)
    with pytest.raises(ModelError):
        advkit.evaluate(network(), (x, y), LINF, "pgd", classes=2)


class Remembering(nn.Linear):
    """A layer with a state that is no tensor."""

    def get_extra_state(self) -> Any:
        return {"since": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


def test_extra_state_and_quantised_weights(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    x, y = images
    extra = nn.Sequential(nn.Flatten(), Remembering(64, 10)).eval()
    assert advkit.certify(extra, (x, y), advkit.Threat("linf", 1e-3)).n == len(x)
    assert advkit.spatial(model=extra, data=(x, y), out=tmp_path / "run", progress=False).folder
    made = []
    for factor in (1.0, 1.5):
        module = network()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module[1].weight.mul_(factor)  # type: ignore[index]
            made.append(torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8))
    hashes = [advkit.load_model(module, shape=SHAPE).hash for module in made]
    assert hashes[0] != hashes[1]
    with pytest.raises(ModelError):
        advkit.perturb(made[0], x, y, LINF)


def test_contents() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    assert contents(tensor) == tensor.numpy().tobytes() == contents(tensor.T.contiguous().T)
    assert contents(tensor.bfloat16()) == tensor.bfloat16().view(torch.uint8).numpy().tobytes()
    assert contents((tensor, [None])) == contents(tensor) + b"None"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which is deprecated
        quantised = torch.quantize_per_tensor(tensor, 0.5, 0, torch.quint8)
    assert contents(quantised) == contents(tensor)


TARGETS: dict[str, tuple[Any, list[int] | None]] = {
    "floats": (torch.tensor([1.0, 2.0, 3.0]), [1, 2, 3]),
    "bytes": (np.array([1, 2, 3], np.uint8), [1, 2, 3]),
    "one float": (4.0, [4, 4, 4]),
    "one-hot": (torch.eye(10)[[1, 2, 3]], [1, 2, 3]),
    "one-hot integers": (np.eye(10, dtype=int)[[1, 2, 3]], [1, 2, 3]),
    "one-hot booleans": (torch.eye(10)[[1, 2, 3]] > 0, [1, 2, 3]),
    "one-hot for all": (torch.eye(10)[4], [4, 4, 4]),
    "column of floats": ([[1.0], [2.0], [3.0]], [1, 2, 3]),
    "halves": (torch.tensor([1.5, 2.0, 3.0]), None),
    "not a number": (torch.tensor([float("nan"), 2.0, 3.0]), None),
    "soft": (torch.full((3, 10), 0.1), None),
    "two of ten": (torch.eye(10)[[1, 2, 3]] + torch.eye(10)[[2, 3, 4]], None),
    "too many": (torch.tensor([1, 2, 3, 4]), None),
    "outside": (torch.tensor([1.0, 2.0, 10.0]), None),
    "negative": (-1.0, None),
    "booleans": (torch.tensor([True, False, True]), None),
    "text": ("cat", None),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_in_any_form(name: str, images: tuple[Tensor, Tensor]) -> None:
    x, y = images[0][:3], torch.zeros(3, dtype=torch.long)
    given, meant = TARGETS[name]
    if meant is None:
        with pytest.raises(UserError) as caught:
            advkit.perturb(network(), x, y, LINF, target=given)
        assert "\n" not in str(caught.value)
        return
    found, expected = (advkit.perturb(network(), x, y, LINF, target=t) for t in (given, torch.tensor(meant)))
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.success, expected.success)


class Estimator:
    """As scikit-learn has them, of rows of 64 values."""

    classes_, n_features_in_ = [3, 5], 64

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([rows.mean(1), 1 - rows.mean(1)], 1)


def ratios(x: np.ndarray) -> np.ndarray:
    return Estimator().predict_proba(x.reshape(len(x), -1))


@pytest.mark.parametrize("access", ["scores", "decisions"])
@pytest.mark.parametrize("outputs", [None, "logits", "probabilities"])
@pytest.mark.parametrize("estimator", [False, True])
def test_what_is_known_of_a_black_box(access: Any, outputs: Any, estimator: bool) -> None:
    """Only scores have a kind; those of an estimator are probabilities, and its rows are of one length."""
    how: Any = {"access": access, "outputs": outputs, "max_queries": 7, "max_total_queries": 90}
    box = advkit.BlackBox(Estimator() if estimator else ratios, classes=2, **how)
    card = (model := advkit.load_model(box, shape=SHAPE)).card
    kind = outputs or ("probabilities" if estimator else "logits")
    assert card.preprocessing.outputs == (kind if access == "scores" else "logits")
    x = torch.rand(4, *SHAPE)
    answers = torch.from_numpy(ratios(x.numpy()))
    if access == "scores":
        torch.testing.assert_close(model(x), answers.log() if kind == "probabilities" else answers)
    assert card.config == {"access": access, "max_queries": 7, "max_total_queries": 90}
    assert (card.shape, card.classes) == (SHAPE, 2)
    for random in (False, True):  # is taken on trust: looking would be queries
        assert inspect_classifier(model, x, 2, allow_random=random).deterministic is not random
    if estimator:
        with pytest.raises(UserError):
            advkit.load_model(box, shape=(1, 8, 9))


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile()
    return module


def ends(*args: Any, **kwargs: Any) -> Any:
    raise SystemExit(3)


def test_code_that_ends_the_program_is_the_users_fault(
    images: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a script does that reads its own arguments when it is imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_script_of_theirs.py").write_text(
        "import argparse\nargparse.ArgumentParser().parse_args(['-x'])"
    )
    (tmp_path / "ends_when_called.py").write_text("def made(split=None): raise SystemExit(3)")
    x, y = images
    for call in (
        lambda: advkit.load_model("a_script_of_theirs:make"),
        lambda: advkit.load_model("ends_when_called:made"),
        lambda: advkit.load_data("ends_when_called:made"),
        lambda: advkit.perturb(Through(ends), x, y, LINF),
        lambda: advkit.perturb(advkit.BlackBox(ends, classes=10, shape=SHAPE), x, y, LINF, "square"),
    ):
        with pytest.raises(UserError):
            call()


def test_weights_that_are_shapes_alone_are_refused(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    half = network()
    half.append(nn.Linear(10, 10, device="meta"))
    for model in (network().to("meta"), half):
        for call in (
            lambda model=model: advkit.evaluate(model, images, LINF, "fgsm"),
            lambda model=model: advkit.spatial(model=model, data=images),
            lambda model=model: advkit.load_model(model, shape=SHAPE, device="cpu"),
            lambda model=model: save_model(advkit.load_model(model, shape=SHAPE), tmp_path / "m.pt"),
        ):
            with pytest.raises(ModelError):
                call()
    model = advkit.load_model(half, shape=SHAPE, pixel_range=(-1, 1))
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu", "meta"}  # as it was


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "parallel": nn.DataParallel,
    "parallel inside": lambda module: nn.Sequential(nn.DataParallel(module)),
    "compiled": torch.compile,
    "compiled inside": lambda module: nn.Sequential(torch.compile(module)),
    "compiled in place": compiled_in_place,
}


@pytest.mark.filterwarnings("ignore")  # of the compiler itself
@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_change_neither_proofs_nor_attacks(name: str, images: tuple[Tensor, Tensor]) -> None:
    """A backward pass that was compiled cannot be repeated, which some attacks and checks do."""
    if "compiled" in name and not leaves_compilation_out():
        pytest.skip("this PyTorch cannot leave compilation out")
    x, threat = images[0], advkit.Threat("linf", 0.05)
    y, plain = network()(x).argmax(1), network()
    model = WRAPPED[name](network()).eval()
    one, other = (advkit.certify(each, (x, y), threat) for each in (model, plain))
    assert [v.margin for v in one.verdicts] == [v.margin for v in other.verdicts]
    first, second = (advkit.evaluate(each, (x, y), threat, ("pgd", "fab")) for each in (model, plain))
    assert first.robust_correct == second.robust_correct < len(x)
    assert (len(first.notes) > len(second.notes)) == ("compiled" in name)


def test_proofs_of_torchscript_are_refused(images: tuple[Tensor, Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(network())
    for model in (script, nn.Sequential(script)):
        with pytest.raises(ModelError, match="TorchScript"):
            advkit.certify(model, images, LINF)
