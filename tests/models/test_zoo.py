"""One trained network in all the forms in which people save it: its accuracy, or a refusal."""

from __future__ import annotations

import argparse
import copy
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from advkit import load_data, load_model
from advkit.core.errors import ModelError

MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Linear(128, 32)
        self.second = nn.Linear(32, 32)
        self.third = nn.Linear(32, 32)
        self.out = nn.Linear(32, 10)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.norm(self.conv(x))), 2).flatten(1)
        return self.out(torch.relu(self.third(torch.relu(self.second(torch.relu(self.first(x)))))))


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x)


def distinct():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def row():
    return nn.Sequential(nn.Flatten(), *[nn.Linear(64, 64) for _ in range(3)], nn.Linear(64, 10))


def shallow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""

State = dict[str, Any]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: Any) -> Any:
    """The module of a user, which can be imported while these tests run."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "zoo_net.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import zoo_net

        yield zoo_net


@pytest.fixture(scope="module")
def truth(theirs: Any) -> tuple[State, Tensor, Tensor]:
    """The weights of the network, trained a little, and its answers to test images."""
    x, y = load_data("digits", "train").batch(torch.arange(600))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = theirs.Net()
        optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(12):
            optimiser.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            optimiser.step()
    images, _ = load_data("digits").batch(torch.arange(100))
    with torch.no_grad():
        return dict(net.eval().state_dict()), images, net(images).argmax(1)


def prefixed(*prefixes: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{name}": state[name] for prefix in prefixes for name in state}


PREFIXES: dict[str, Callable[[State], State]] = {
    "none": dict,
    "module": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "nested": prefixed("module._orig_mod.model."),
    "repeated": prefixed("model.model."),
    "lightning": lambda s: {
        **prefixed("net.")(s),
        "train_acc.total": torch.tensor(3.0),
        "confusion": torch.zeros(10, 10, dtype=torch.long),
        "criterion.weight": torch.ones(10),
    },
    "averaged": lambda s: {"n_averaged": torch.tensor(5), **prefixed("module.")(s)},
    "robustness": lambda s: {
        **prefixed("module.model.", "module.attacker.model.")(s),
        "module.normalizer.new_mean": torch.zeros(1, 1, 1),
        "module.attacker.normalize.new_mean": torch.zeros(1, 1, 1),
    },
    "a layer in parallel": lambda s: {n.replace("conv.", "conv.module."): s[n] for n in s},
    "no counters": lambda s: {n: s[n] for n in s if s[n].dim() > 0},
    "metrics": lambda s: {**s, "epoch": 3, "best_acc": torch.tensor(0.9), "history": [1.0], "step": 7.5},
}
ORDERS: dict[str, Callable[[list[str]], list[str]]] = {
    "own": list,
    "sorted": sorted,
    "reversed": lambda names: names[::-1],
}
WRAPPERS: dict[str, Callable[[State], Any]] = {
    "bare": dict,
    "state_dict": lambda s: {
        "state_dict": s,
        "epoch": 3,
        "optimizer": {"state": {0: {"exp": torch.ones(3)}}},
    },
    "any key": lambda s: {"the_best_one": {"inner": s}, "best": np.float64(0.9), "at": np.int64(3)},
    "arguments": lambda s: {
        "model": s,
        "args": argparse.Namespace(lr=0.1, layers=[1, 2]),
        "curve": np.zeros((2, 3), np.float32),
        "torch_rng_state": torch.get_rng_state(),
    },
}
TYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "half": torch.float16,
}
FORMS = [
    *itertools.product(PREFIXES, ORDERS, ["bare"], ["float32"], ["pt"]),
    *itertools.product(["nested"], ["sorted"], WRAPPERS, TYPES, ["pt", "legacy"]),
    *itertools.product(list(PREFIXES)[:-1], ["own", "reversed"], ["bare"], ["float32"], ["safetensors"]),
]


@pytest.mark.parametrize("arch", ["Net", "Wrapped"])
@pytest.mark.parametrize(("prefix", "order", "wrapper", "kind", "container"), FORMS)
def test_every_form_gives_the_network(
    prefix: str,
    order: str,
    wrapper: str,
    kind: str,
    container: str,
    arch: str,
    truth: tuple[State, Tensor, Tensor],
    tmp_path: Path,
) -> None:
    state, images, answers = truth
    state = {n: t.to(TYPES[kind]) if t.is_floating_point() else t for n, t in state.items()}
    state = PREFIXES[prefix](state)
    state = {name: state[name] for name in ORDERS[order](list(state))}
    path = tmp_path / f"m.{container}"
    if container == "safetensors":
        safetensors.torch.save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    else:
        legacy = container == "legacy"
        torch.save(WRAPPERS[wrapper](state), path, _use_new_zipfile_serialization=not legacy)
    model = load_model(path, arch=f"zoo_net:{arch}", shape=(1, 8, 8))
    codes = {note.code for note in model.notes}
    assert "weights-by-shape" not in codes
    assert ("weights-converted" in codes) == (kind != "float32")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    with torch.no_grad():
        agree = (model(images).argmax(1) == answers).float().mean().item()
    assert agree >= (1.0 if kind in ("float32", "float64") else 0.95)


REFUSED: dict[str, Callable[[State], Any]] = {
    "other names": lambda s: {f"{n:03d}": t for n, t in enumerate(s.values())},
    "other names of layers": lambda s: {n.replace("first", "a").replace("second", "b"): s[n] for n in s},
    "one layer is missing": lambda s: {n: s[n] for n in s if not n.startswith("second")},
    "one layer more": lambda s: {**s, "fourth.weight": torch.eye(32)},
    "a layer beside": lambda s: {**prefixed("body.")(s), "head.weight": torch.eye(10)},
    "a scale beside": lambda s: {**prefixed("body.")(s), "scale.gamma": torch.full((10,), 2.0)},
    "a norm beside": lambda s: {**prefixed("body.")(s), "norm.running_mean": torch.ones(10)},
    "two copies": lambda s: {**prefixed("student.")(s), **{f"teacher.{n}": s[n] * 2 for n in s}},
    "two dicts": lambda s: {"state_dict": s, "state_dict_ema": {n: s[n] * 0 for n in s}},
    "nested dicts": lambda s: {"a": {"net": s}, "b": {"net": {n: s[n] * 0 for n in s}}},
    "flat and nested": lambda s: {**s, "ema": {n: s[n] * 0 for n in s}},
    "another shape": lambda s: {**s, "out.weight": torch.zeros(9, 32)},
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_open_is_refused(form: str, truth: Any, theirs: Any, tmp_path: Path) -> None:
    torch.save(REFUSED[form](truth[0]), tmp_path / "m.pt")
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "m.pt", arch="zoo_net:Net", shape=(1, 8, 8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ("two copies", "student", "teacher"),
        ("two dicts", "state_dict", "state_dict_ema"),
        ("nested dicts", "a.net", "b.net"),
        ("nested dicts", "a", None),
    ],
)
def test_a_key_chooses(form: str, right: str, wrong: str | None, truth: Any, tmp_path: Path) -> None:
    state, images, answers = truth
    content, path = REFUSED[form](state), tmp_path / "m.pt"
    torch.save(content, path)
    if form == "two copies":
        path = tmp_path / "m.safetensors"
        safetensors.torch.save_file(content, path)
    more: Any = {"arch": "zoo_net:Net", "shape": (1, 8, 8)}
    if wrong is None:
        with pytest.raises(ModelError, match=r"a\.net"):
            load_model(path, weights_key=right, **more)
        return
    assert (load_model(path, weights_key=right, **more)(images).argmax(1) == answers).all()
    other = load_model(path, weights_key=wrong, **more)
    assert not torch.equal(other(images), load_model(path, weights_key=right, **more)(images))
    with pytest.raises(ModelError, match=re.escape(right)):
        load_model(path, weights_key="nothing", **more)


def test_one_state_dict_several_times_is_one(truth: Any, tmp_path: Path) -> None:
    state, images, answers = truth
    torch.save({"last": state, "best": copy.deepcopy(state)}, tmp_path / "m.pt")
    model = load_model(tmp_path / "m.pt", arch="zoo_net:Net", shape=(1, 8, 8))
    assert (model(images).argmax(1) == answers).all()


def weights(maker: Any) -> nn.Module:
    torch.manual_seed(3)
    return maker().eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("order", ORDERS)
def test_shapes_decide_only_where_they_differ(order: str, theirs: Any, tmp_path: Path) -> None:
    x = torch.rand(4, 1, 8, 8)
    for maker, rename, loads in (
        (theirs.distinct, lambda n: n.replace("1.", "hidden.").replace("3.", "head."), True),
        (theirs.distinct, lambda n: f"t{len(n)}{ord(n[0])}{n[2]}", True),
        (theirs.row, lambda n: f"layers.{int(n[0]) + 6}{n[1:]}", True),  # numbers decide, also beyond 9
        (theirs.row, lambda n: f"{'dcba'[int(n[0]) - 1]}{n[1:]}", False),
        (theirs.row, lambda n: f"{int(n[0]) - 1}{n[1:]}", False),  # where '1' is another layer's name
    ):
        net = weights(maker)
        state = net.state_dict()
        torch.save({rename(name): state[name] for name in ORDERS[order](list(state))}, tmp_path / "m.pt")
        where = {"arch": f"zoo_net:{maker.__name__}", "shape": (1, 8, 8)}
        if loads:
            model = load_model(tmp_path / "m.pt", **where)
            assert torch.equal(model(x), net(x))
            assert "weights-by-shape" in {note.code for note in model.notes}
        else:
            with pytest.raises(ModelError):
                load_model(tmp_path / "m.pt", **where)


def test_a_normaliser_in_the_file_is_applied_unless_one_is_named(theirs: Any, tmp_path: Path) -> None:
    net, x = weights(theirs.shallow), torch.rand(4, 1, 8, 8)
    for mean, std, value in (
        ("0.mean", "0.std", 0.25),
        ("normalizer.new_mean", "normalizer.new_std", 0.0),
        ("mu", "sigma", 1.0),
    ):
        inner = prefixed("1.")(net.state_dict())
        state = {**inner, mean: torch.full((1, 1, 1), value), std: torch.full((1, 1, 1), 0.5)}
        torch.save(state, tmp_path / "m.pt")
        model = load_model(tmp_path / "m.pt", arch="zoo_net:shallow", shape=(1, 8, 8))
        torch.testing.assert_close(model(x), net((x - value) / 0.5))
        assert [note.code for note in model.notes] == ["normalisation-read"]
        named = load_model(tmp_path / "m.pt", arch="zoo_net:shallow", shape=(1, 8, 8), mean=[0.1])
        torch.testing.assert_close(named(x), net(x - 0.1))
        assert [note.code for note in named.notes] == ["weights-left-out"]


FILES: dict[str, tuple[bytes, str]] = {
    "page.pt": (b"\n<!DOCTYPE html><html><body>404</body></html>", "HTML"),
    "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull"),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "keras.h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "array.bin": (b"\x93NUMPY\x01\x00" + bytes(50), "NumPy"),
    "packed.pth": (b"\x1f\x8b\x08" + bytes(50), "gzip"),
    "short.pt": (b"\x08", "damaged"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_checkpoints_are_called_by_their_name(name: str, tmp_path: Path) -> None:
    content, said = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=said) as caught:
        load_model(tmp_path / name, arch="lenet")
    assert "\n" not in str(caught.value)


def test_archives_that_are_no_checkpoints(theirs: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    with pytest.raises(ModelError, match="NumPy"):
        load_model(tmp_path / "arrays.npz")
    safetensors.torch.save_file(weights(theirs.shallow).state_dict(), tmp_path / "m.bin")
    assert load_model(tmp_path / "m.bin", arch="zoo_net:shallow", shape=(1, 8, 8)).card.classes is None


def test_what_files_may_hold_is_as_before_when_one_was_read(tmp_path: Path) -> None:
    torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "best": np.float64(1)}, tmp_path / "m.pt")
    counts = set()
    for _ in range(3):
        with pytest.raises(ModelError):
            load_model(tmp_path / "m.pt")
        counts.add(len(torch.serialization.get_safe_globals()))
    assert len(counts) == 1  # the first may import more of PyTorch, which adds its own
