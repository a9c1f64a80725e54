"""Programs of ``torch.export``, in files of all versions and in hand."""

from __future__ import annotations

import copy
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import advkit
from advkit.core.errors import ConfigError, ModelError
from advkit.models.program import DTYPES, Program


class Branches(nn.Module):
    """Shared weights, an in-place operation seen through a view, constants, sizes, and lists of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.mix, self.out = nn.Linear(64, 64), nn.Linear(64, 5)
        self.register_buffer("middle", torch.tensor([[[0.5]], [[0.25]]]), persistent=False)
        self.norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x - self.middle))
        seen = x.view(x.shape[0], -1)
        x.mul_(0.5)
        one, two = torch.chunk(seen.reshape(seen.shape[0], 4, 16).flatten(1), 2, 1)
        x = torch.cat([one.relu(), functional.leaky_relu(two, 0.2)], 1)
        x = self.mix(self.mix(x)) + x.new_zeros(x.shape[0], 64)
        return self.out(functional.dropout(x, 0.5, self.training).relu())  # type: ignore[no-any-return]


class Halves(nn.Module):
    """Makes more rows of a batch, which the program writes as one number."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0] * 2, 16).sum(1).view(x.shape[0], 2)


def pooled() -> nn.Module:
    layers = [nn.Conv2d(2, 6, 3, 2, 1, groups=2), nn.ReLU(), nn.MaxPool2d(2, 1), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 5, bias=False))


NETS: dict[str, Callable[[], nn.Module]] = {"branches": Branches, "pooled": pooled}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return NETS[name]().eval(), torch.rand(7, 2, 4, 4)


def exported(network: nn.Module, x: Tensor, batch: int | None) -> Any:
    sizes = ({0: torch.export.Dim("n", min=1, max=64)},) if batch is None else None
    return torch.export.export(network, (x[: batch or 3],), dynamic_shapes=sizes)


def members(program: Any) -> dict[str, bytes]:
    file = io.BytesIO()
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        return {name.partition("/")[2] or name: archive.read(name) for name in archive.namelist()}


def saved(parts: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def tensors_of(program: Any) -> tuple[bytes, bytes]:
    """State dict and constants, each saved by `torch.save`."""
    constants = {name: tensor for name, tensor in program.constants.items() if torch.is_tensor(tensor)}
    files = (io.BytesIO(), io.BytesIO())
    for part, file in zip((dict(program.state_dict), constants), files, strict=True):
        torch.save(part, file)
    return files[0].getvalue(), files[1].getvalue()


def graph_of(program: Any) -> dict[str, Any]:
    parts = members(program)
    name = next(name for name in parts if name.endswith(("model.json", "exported_program.json")))
    return json.loads(parts[name])  # type: ignore[no-any-return]


def layouts(program: Any, folder: Path) -> list[Path]:
    """The program as this version, as PyTorch 2.4 to 2.7, and as 2.8 write it."""
    state, constants = tensors_of(program)
    graph = json.dumps(graph_of(program)).encode()
    old = {
        "serialized_exported_program.json": graph,
        "serialized_state_dict.pt": state,
        "serialized_constants.pt": constants,
    }
    middle = {
        "m/models/model.json": graph,
        "m/data/weights/model.pt": state,
        "m/data/constants/model.pt": constants,
    }
    torch.export.save(program, folder / "new.pt2")
    (folder / "new.pt2").rename(folder / "new.bin")  # known by its content
    return [folder / "new.bin", saved(old, folder / "old.pt2"), saved(middle, folder / "middle.pt2")]


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("name", NETS)
def test_a_program_is_the_network_that_was_exported(name: str, batch: int | None, tmp_path: Path) -> None:
    network, x = made(name)
    program = exported(network, x, batch)
    for where in (program, *layouts(program, tmp_path)):
        model = advkit.load_model(where)
        assert (model.card.shape, model.card.classes) == ((2, 4, 4), 5)
        assert "batch-fixed" not in {note.code for note in model.notes}
        for twin in (model, copy.deepcopy(model)):
            a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
            torch.testing.assert_close(twin(a * 1), network(b * 1), rtol=1e-6, atol=1e-6)
            twin(a * 1).square().sum().backward()
            network(b * 1).square().sum().backward()
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)
        own, other = dict(network.named_parameters()), dict(model.network.weights.named_parameters())
        assert set(own) == set(other) and all(torch.equal(own[key], other[key]) for key in own)
        for place, layer in network.named_modules():  # which proofs and pictures of a model name
            if list(layer.parameters(recurse=False)):
                assert type(model.network.weights.get_submodule(place)) is type(layer)
        assert not model.network.train().eval().training


@pytest.mark.parametrize("batch", [1, 2])
def test_a_program_of_one_batch_size_is_given_no_other(batch: int) -> None:
    x = torch.rand(5, 2, 4, 4)
    model = advkit.load_model(exported(Halves(), x, batch))
    assert {note.code for note in model.notes} == {"batch-fixed", "normalisation-assumed"}
    torch.testing.assert_close(model(x), Halves()(x))
    assert model.card.classes == 2


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_program_of_another_precision_is_given_it(kind: torch.dtype) -> None:
    network, x = made("pooled")
    model = advkit.load_model(exported(network.to(kind), x.to(kind), 1))
    assert {note.code for note in model.notes} == {"weights-converted", "normalisation-assumed"}
    torch.testing.assert_close(model(x), network(x.to(kind)).float(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("batch", [None, 2])
def test_the_logits_are_found_among_several_outputs(batch: int | None) -> None:
    class Both(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(1), self.net(x)

    network, x = made("pooled")
    model = advkit.load_model(exported(Both(network), x, batch), classes=5)
    torch.testing.assert_close(model(x), network(x))


def test_a_program_is_attacked_and_certified() -> None:
    network, x = made("pooled")
    y = network(x).argmax(1)
    program = exported(network, x, 1)
    threat = advkit.Threat("linf", 1 / 1000)
    found, expected = (advkit.certify(each, (x, y), threat) for each in (program, network))
    assert found.certified_correct == expected.certified_correct > 0
    wide = advkit.Threat("linf", 0.3)
    result = advkit.evaluate(program, (x, y), wide, "pgd")
    assert result.robust_correct == advkit.evaluate(network, (x, y), wide, "pgd").robust_correct


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('it ran')",)


def call(target: str, *args: Any) -> dict[str, Any]:
    inputs = [{"name": name, "arg": arg, "kind": 1} for name, arg in args]
    return {"target": target, "inputs": inputs, "outputs": [{"as_tensor": {"name": "made"}}], "metadata": {}}


TEXT = ("self", {"as_string": "true"})
SPARSE = ("layout", {"as_layout": 1})
CALLS: dict[str, dict[str, Any]] = {
    "a function of torch": call("torch.os.system", TEXT),
    "a function of operator": call("_operator.attrgetter", TEXT),
    "no overload": call("torch.ops.aten.relu.__class__", TEXT),
    "a function of another library": call("torch.ops.mine.relu.default", TEXT),
    "a file": call("torch.ops.aten.from_file.default", ("filename", {"as_string": "secret"})),
    "a layout": call("torch.ops.aten.zeros.default", ("size", {"as_ints": [1]}), SPARSE),
    "a graph": call("torch.ops.aten.relu.default", ("self", {"as_graph": {"name": "g", "graph": {}}})),
    "an object": call("torch.ops.aten.relu.default", ("self", {"as_custom_obj": {"name": "o"}})),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_file_calls_nothing_but_functions_of_tensors(name: str, tmp_path: Path) -> None:
    network, x = made("pooled")
    program = exported(network, x, None)
    graph = graph_of(program)
    graph["graph_module"]["graph"]["nodes"].insert(0, CALLS[name])
    state, constants = tensors_of(program)
    parts = {"models/model.json": json.dumps(graph).encode()}
    parts |= {"data/weights/model.pt": state, "data/constants/model.pt": constants}
    with pytest.raises(ModelError) as caught:
        advkit.load_model(saved(parts, tmp_path / "m.pt2"))
    assert "\n" not in str(caught.value)


def test_a_compiled_program_is_called_so(tmp_path: Path) -> None:
    for name, compiled in (("data/aotinductor/model/wrapper.so", True), ("data/other/model.json", False)):
        with pytest.raises(ModelError) as caught:
            advkit.load_model(saved({name: b"{}"}, tmp_path / "m.pt2"))
        assert ("m.pt2 is compiled" in str(caught.value)) == compiled


def test_nothing_is_unpickled_but_tensors(tmp_path: Path) -> None:
    network, x = made("pooled")
    program = exported(network, x, None)
    state, constants = tensors_of(program)
    evil = pickle.dumps(Evil())
    (tmp_path / "evil.pt").touch()
    torch.save(Evil(), tmp_path / "evil.pt")
    one = {"c": {"path_name": "tensor_0", "use_pickle": True, "tensor_meta": None}}
    listed = json.dumps({"config": one}).encode()
    graph = json.dumps(graph_of(program)).encode()
    for bad in (evil, (tmp_path / "evil.pt").read_bytes()):
        for more in (
            {"data/weights/model.pt": bad},
            {"data/weights/model.pt": state, "data/constants/model.pt": bad},
            {"data/constants/model_constants_config.json": listed, "data/constants/tensor_0": bad},
        ):
            with pytest.raises(ModelError, match="nothing was executed"):
                advkit.load_model(saved({"models/model.json": graph, **more}, tmp_path / "m.pt2"))
    harmless = saved(
        {
            "models/model.json": graph,
            "data/weights/model.pt": state,
            "data/constants/model.pt": constants,
            "data/sample_inputs/model.pt": evil,  # which nobody reads
        },
        tmp_path / "m.pt2",
    )
    torch.testing.assert_close(advkit.load_model(harmless)(x), network(x))


def test_what_is_no_program_or_not_of_images(tmp_path: Path) -> None:
    network, x = made("pooled")
    program = exported(network, x, None)
    path = tmp_path / "m.pt2"
    torch.export.save(program, path)
    for arch, weights in (("lenet", None), (None, "none"), (None, path)):
        with pytest.raises(ConfigError):
            advkit.load_model(path, arch=arch, weights=weights)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ModelError):
            advkit.load_model(path)
    with pytest.raises(ModelError, match=r"torch\.export\.save"):
        advkit.load_model(saved({"data/aotinductor/model/m.so": b""}, path))
    with pytest.raises(ModelError) as caught:
        advkit.load_model("absent.pt2")
    assert caught.value.code == "model-not-found"
    graph = graph_of(program)
    with pytest.raises(ModelError, match="no tensor"):
        broken = copy.deepcopy(graph)
        broken["graph_module"]["signature"]["input_specs"].append({"token": {"arg": {"name": "t"}}})
        Program(broken, dict(program.state_dict))

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(ModelError, match="2 tensors"):
        advkit.load_model(torch.export.export(Two(), (x, x)))

    class Levels(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float().flatten(1)

    with pytest.raises(ModelError, match="train mode"):
        advkit.load_model(exported(Branches().train(), x, None))
    with pytest.raises(ModelError, match="uint8"):
        advkit.load_model(torch.export.export(Levels(), (x.byte(),)))


def test_numbers_of_types_are_those_of_torch_export() -> None:
    from torch._export.serde.serialize import _TORCH_TO_SERIALIZE_DTYPE

    theirs = {int(number): kind for kind, number in _TORCH_TO_SERIALIZE_DTYPE.items()}
    assert all(theirs[number] == kind for number, kind in DTYPES.items())
