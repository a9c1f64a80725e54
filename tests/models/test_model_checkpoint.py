from __future__ import annotations

import errno
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advkit import __version__, load_model, save_model
from advkit.core import files
from advkit.core.errors import ConfigError, ModelError, OutputError
from advkit.models import checkpoint
from advkit.models.card import Parent, Preprocessing
from advkit.models.checkpoint import (
    assemble,
    first_mismatch,
    load_checkpoint,
    read_checkpoint,
    rounded,
    write_checkpoint,
)
from advkit.models.header import read_card
from advkit.models.model import content_hash, weights_hash
from advkit.models.store import Store

SUFFIXES = [".safetensors", ".pt"]


def refusal(load: Callable[[Any], Any], path: Path) -> str:
    """What is said of a file that cannot be loaded: one line that names it."""
    with pytest.raises(ModelError) as caught:
        load(path)
    said = str(caught.value)
    assert "\n" not in said
    assert path.name in said
    return said


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("created", ["2020-01-01T00:00:00+00:00", ""])
def test_card_and_weights_come_back_bit_for_bit(
    suffix: str, dtype: torch.dtype, created: str, make: Any, tmp_path: Path
) -> None:
    model = make(
        labels=tuple("abcdefghij"),
        preprocessing=Preprocessing(pixel_range=(0.0, 255.0), mean=(120.5,), std=(70.0,)),
        lineage=(Parent(relation="fine-tuned-from", hash="ab" * 32, name="parent"),),
        metrics={"clean_accuracy": 0.1 + 0.2},
        training={"seed": 3, "steps": [1, 2]},
        created=created,
        notes="naïve",
    ).to(dtype)
    path = save_model(model, tmp_path / f"m{suffix}")
    random = torch.get_rng_state()
    again = load_checkpoint(path)
    assert torch.equal(random, torch.get_rng_state())
    assert bool(again.card.created) and (again.card.created == created or not created)
    stamped = model.card.model_copy(update={"advkit": __version__, "created": again.card.created})
    assert again.card == read_card(path) == stamped
    assert not again.training
    assert again.hash == model.hash
    own, found = model.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(own[name], found[name]) and found[name].dtype == dtype for name in own)
    second = save_model(again, tmp_path / f"again{suffix}")
    assert second.read_bytes() == path.read_bytes()
    assert b"schema_name" not in path.read_bytes() and b"advkit/model" in path.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rounded_weights_take_half_the_place_and_are_read_in_float32(
    suffix: str, make: Any, tmp_path: Path
) -> None:
    """A rounded model is another one, unless rounding changes nothing."""
    model = make("resnet18-cifar", config={"width": 8}, metrics={"clean_accuracy": 0.9})
    whole = save_model(model, tmp_path / f"whole{suffix}")
    state = model.network.state_dict()
    path = write_checkpoint(model.card, state, tmp_path / f"half{suffix}", half=True)
    assert path.stat().st_size < 0.7 * whole.stat().st_size
    again = load_checkpoint(path)
    found = again.network.state_dict()
    for name, tensor in state.items():
        wanted = torch.from_numpy(tensor.numpy().astype(np.float16).astype(tensor.numpy().dtype))
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], wanted)
    assert again.card == read_card(path) and not again.card.metrics
    assert [(one.relation, one.hash) for one in again.card.lineage] == [("rounded-from", model.hash)]
    card, same = rounded(again.card, found)
    assert card == again.card
    assert content_hash(card, same) == again.hash != model.hash
    second = write_checkpoint(again.card, found, tmp_path / f"again{suffix}", half=True)
    assert second.read_bytes() == path.read_bytes()


def test_weights_beyond_float16_are_not_rounded(make: Any, tmp_path: Path) -> None:
    """Infinities that are there already remain."""
    model = make("resnet18-cifar", config={"width": 2})
    state = model.network.state_dict()
    state["bn1.running_mean"][0] = float("inf")
    assert rounded(model.card, state)[1]["bn1.running_mean"][0].isinf()
    state["bn1.weight"][1] = 65_520
    with pytest.raises(ModelError, match=r"bn1\.weight"):
        write_checkpoint(model.card, state, tmp_path / "m.pt", half=True)
    assert not (tmp_path / "m.pt").exists()


def test_weights_in_other_layouts_or_shared_are_saved(make: Any, tmp_path: Path) -> None:
    model = make("lenet").to(memory_format=torch.channels_last)
    model.network.conv2.bias.data = model.network.linear1.bias.data[:64]
    again = load_checkpoint(save_model(model, tmp_path / "m.safetensors"))
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(again(x), model(x))


def test_places_that_cannot_be_written(make: Any, tmp_path: Path) -> None:
    for name in ("m", "m.pth", "m.h5"):
        with pytest.raises(ConfigError):
            save_model(make(), tmp_path / name)
    path = save_model(make(seed=0), tmp_path / "m.pt")
    (tmp_path / "folder.pt").mkdir()
    for place, more in (
        (path, {}),
        (path / "m.pt", {"overwrite": True}),
        (tmp_path / "folder.pt", {"overwrite": True}),
    ):
        with pytest.raises(OutputError):
            save_model(make(seed=1), place, **more)
        with pytest.raises(OutputError):
            write_checkpoint(make().card, {}, place, **more)
    assert load_checkpoint(path).hash == make(seed=0).hash
    assert load_checkpoint(save_model(make(seed=1), path, overwrite=True)).hash == make(seed=1).hash


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_old_file(
    suffix: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_model(make(seed=0), tmp_path / f"m{suffix}")

    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", mock.Mock(side_effect=full))
    with pytest.raises(OutputError):
        save_model(make(seed=1), path, overwrite=True)
    assert load_checkpoint(path).hash == make(seed=0).hash
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["bn1.weight", "bn1.running_mean"])
def test_weights_are_finite_and_buffers_no_nan(value: float, name: str, make: Any, tmp_path: Path) -> None:
    """Infinities in buffers are masks."""
    model = make("resnet18-cifar", config={"width": 2})
    model.network.state_dict()[name][1] = value
    path = write_checkpoint(model.card, model.network.state_dict(), tmp_path / "m.pt")
    if name.endswith("mean") and value == value:
        assert load_checkpoint(save_model(model, path, overwrite=True)).hash == model.hash
        return
    assert repr(name) in refusal(load_checkpoint, path)
    with pytest.raises(ModelError, match=name):
        save_model(model, tmp_path / "other.pt")
    assert not (tmp_path / "other.pt").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("load", [load_checkpoint, load_model])
def test_files_that_are_no_model(suffix: str, load: Callable[[Any], Any], make: Any, tmp_path: Path) -> None:
    path = save_model(make("lenet"), tmp_path / f"model{suffix}")
    assert f"did you mean 'model{suffix}'" in refusal(load, tmp_path / f"modle{suffix}")
    for content in (b"", b"1", b"not a model at all\n" * 40, b"\x89PNG\r\n\x1a\n" + bytes(200)):
        path.write_bytes(content)
        assert ("damaged" in refusal(load, path)) == bool(content)
    assert "is a folder" in refusal(load_checkpoint, tmp_path)
    refusal(load_checkpoint, tmp_path / "nowhere" / f"model{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_flipped_bit_is_noticed_or_changes_no_weight(suffix: str, make: Any, tmp_path: Path) -> None:
    model = make(shape=(1, 2, 2), classes=2, config={"hidden": [40]})
    path = save_model(model, tmp_path / f"m{suffix}")
    whole = path.read_bytes()
    noticed, bits = 0, 8 * len(whole)
    for bit in (*range(0, bits, bits // 150 + 1), *range(bits - 8 * 64, bits)):  # what an archive ends with
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            _, state = read_checkpoint(path)
        except ModelError:
            noticed += 1
        else:
            assert weights_hash(state) == weights_hash(model.network.state_dict())
    assert noticed > 30
    for end in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:end])
        refusal(load_checkpoint, path)
        refusal(load_model, path)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrapped", ["torch", "pickle", "legacy", "card"])
def test_code_in_a_pickle_is_named_and_not_run(
    wrapped: str, protocol: int, make: Any, tmp_path: Path
) -> None:
    trap, path = tmp_path / "trap", tmp_path / "evil.pt"
    evil = Malicious(trap)
    state = {**make().network.state_dict(), "extra": evil}
    if wrapped == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": evil}, protocol=protocol))
    elif wrapped == "card":
        torch.save({"advkit": evil, "state_dict": {"w": torch.zeros(1)}}, path, pickle_protocol=protocol)
    else:
        torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=wrapped == "torch")
    for load in (load_checkpoint, read_checkpoint, load_model, lambda p: Store().import_(p, "evil")):
        assert "posix.mkdir" in refusal(load, path)
    assert not trap.exists()


def test_what_would_take_memory_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(torch, "load", lambda *given, **how: loaded.append(given))
    path = tmp_path / "large.pt"
    for protocol in (0, 2, 4):
        path.write_bytes(pickle.dumps({"w": bytearray(b"1")}, protocol=protocol))
        refusal(load_model, path)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("large/data.pkl", pickle.dumps({"w": bytearray(b"1")}, protocol=protocol))
        refusal(load_model, path)
    assert not loaded


def test_other_files_of_pytorch_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save(nn.Linear(2, 2), path)
    assert "torch.nn.modules.linear.Linear" in refusal(load_model, path)
    for protocol in (0, 2, 4):  # of which the newest keeps the name of a function on a stack
        path.write_bytes(pickle.dumps([os.getcwd, torch.zeros, bytes(2**21), os.mkdir], protocol=protocol))
        assert "posix.getcwd" in refusal(load_model, path)
    path.write_bytes(pickle.dumps([bytes(2**21), os.mkdir], protocol=4))
    assert "posix.mkdir" in refusal(load_model, path)
    path.write_bytes(pickle.dumps({"w": 1 + 2j}, protocol=4))
    assert "complex" in refusal(load_model, path)
    path.unlink()
    torch.save({"w": torch.zeros(1)}, path)
    with zipfile.ZipFile(path, "a") as archive:  # which is how one tells an archive of TorchScript
        archive.writestr(f"{archive.namelist()[0].split('/')[0]}/constants.pkl", b"")
    assert "TorchScript" in refusal(load_model, path)


def resealed(card: dict[str, Any], change: Any) -> dict[str, Any]:
    card = files.unsealed(card)
    change(card)
    return files.sealed(card)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The file with its card changed, and everything else as it was."""
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        content["advkit"] = resealed(content["advkit"], change)
        torch.save(content, path)
    else:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        card = json.loads(metadata["advkit"])
        card = resealed(card, change)
        tensors = safetensors.torch.load_file(path)
        safetensors.torch.save_file(tensors, path, {**metadata, "advkit": json.dumps(card)})
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 3, "advkit": "7.8.9"}, "reads up to 2; upgrade to advkit 7.8.9"),
        ({"version": 4}, "reads up to 2; upgrade"),
        ({"version": "nine"}, "version"),
        ({"schema": "other/model"}, "schema"),
        ({"labels": ["a"]}, "1 labels for 10 classes"),
        ({"architecture": "mpl"}, "did you mean 'mlp'"),
        ({"role": "detector"}, "calls a classifier architecture"),
        ({"architecture": "lenet"}, "'conv1.weight' is missing"),
        ({"config": {"hidden": []}}, "'layers.1.weight' is 256x64 where 10x64 is wanted"),
        ({"config": {"hidden": [256]}}, "'layers.3.weight' is 256x256 where 10x256 is wanted"),
    ],
)
def test_cards_that_are_wrong_or_belong_to_other_weights(
    suffix: str, change: dict[str, Any], said: str, make: Any, tmp_path: Path
) -> None:
    path = rewritten(save_model(make(), tmp_path / f"m{suffix}"), lambda card: card.update(change))
    assert said in refusal(load_checkpoint, path)


def test_a_network_of_other_sizes_is_not_built(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    door = load_model("torchvision:squeezenet1_1", weights="none", classes=7, shape=(3, 32, 32))
    monkeypatch.setattr(checkpoint, "_network", None)
    for model in (make(), door):
        with pytest.raises(ModelError):
            assemble(model.card.model_copy(update={"classes": 9}), model.network.state_dict(), "m.pt")


def test_a_card_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for raw in ("{", "[]", "3"):
        safetensors.torch.save_file({"w": torch.zeros(2)}, path, {"advkit": raw})
        assert "its card is no JSON" in refusal(load_checkpoint, path)


@settings(max_examples=40)
@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(1, 2), max_size=2)),
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(1, 2), max_size=2)),
)
def test_the_first_difference_is_named(wanted: dict[str, list[int]], given: dict[str, list[int]]) -> None:
    expected = {name: torch.Size(shape) for name, shape in wanted.items()}
    said = first_mismatch(expected, {name: torch.zeros(shape) for name, shape in given.items()})
    wrong = [name for name in wanted if wanted[name] != given.get(name)]
    wrong += [name for name in given if name not in wanted]
    assert said.startswith(f"'{wrong[0]}' is " if wrong else "") and bool(said) == bool(wrong)


@settings(max_examples=40)
@given(
    st.lists(
        st.sampled_from(["list", "state_dict", "model_state_dict", "model", "net", "weights"]), max_size=4
    ),
    st.booleans(),
)
def test_a_state_dict_is_found_in_any_wrapping(
    tmp_path_factory: Any, wrappings: list[str], more: bool
) -> None:
    state = {"w": nn.Parameter(torch.tensor([1.0, 2.0])), "n": torch.tensor(3)}
    content: Any = state
    for wrapping in wrappings:
        beside = {"epoch": 3, "optimizer": {"lr": 0.1}} if more else {}
        content = [content] if wrapping == "list" else {**beside, wrapping: content}
    path = tmp_path_factory.mktemp("foreign") / "foreign.pth"
    torch.save(content, path)
    card, found = read_checkpoint(path)
    assert card is None and read_card(path) is None
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) and not found[name].requires_grad for name in state)
    assert "--arch" in refusal(load_checkpoint, path)


@pytest.mark.parametrize("content", [{}, [], dict.fromkeys("abcdefg"), {"state_dict": [{}, {}]}, 7])
def test_files_without_a_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    said = refusal(read_checkpoint, tmp_path / "other.pt")
    assert "holds no state dict" in said
    assert ("'e'" in said, "'f'" in said) == (
        len(content) == 7 if isinstance(content, dict) else False,
        False,
    )
