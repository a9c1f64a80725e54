from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from advkit import load_model, save_model
from advkit.errors import ConfigError, ModelError, OutputError
from advkit.models.card import Parent, Preprocessing
from advkit.models.checkpoint import load_checkpoint, read_card, read_checkpoint, write_checkpoint
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
def test_the_card_comes_back_whole(suffix: str, make: Any, tmp_path: Path) -> None:
    model = make(
        labels=tuple("abcdefghij"),
        preprocessing=Preprocessing(pixel_range=(0.0, 255.0), mean=(120.5,), std=(70.0,)),
        lineage=(Parent(relation="fine-tuned-from", hash="ab" * 32, name="parent"),),
        metrics={"clean_accuracy": 0.1 + 0.2},
        training={"seed": 3, "steps": [1, 2]},
        created="2020-01-01T00:00:00+00:00",
        notes="naïve",
    )
    path = save_model(model, tmp_path / f"m{suffix}")
    stamped = model.card.model_copy(update={"advkit": load_checkpoint(path).card.advkit})
    assert stamped.advkit
    assert load_checkpoint(path).card == stamped
    assert read_card(path) == stamped


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_model_makes_one_file_byte_for_byte(suffix: str, make: Any, tmp_path: Path) -> None:
    model = make(created="2020-01-01T00:00:00+00:00")
    first, second = (save_model(model, tmp_path / f"{name}{suffix}") for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_keep_their_type(suffix: str, dtype: torch.dtype, make: Any, tmp_path: Path) -> None:
    model = make().to(dtype)
    again = load_checkpoint(save_model(model, tmp_path / f"m{suffix}"))
    assert {parameter.dtype for parameter in again.parameters()} == {dtype}
    assert again.hash == model.hash


def test_weights_in_other_layouts_or_shared_are_saved(make: Any, tmp_path: Path) -> None:
    model = make("lenet").to(memory_format=torch.channels_last)
    model.network.conv2.bias.data = model.network.linear1.bias.data[:64]
    again = load_checkpoint(save_model(model, tmp_path / "m.safetensors"))
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(again(x), model(x))


def test_loading_does_not_touch_the_global_random_state(make: Any, tmp_path: Path) -> None:
    path = save_model(make("lenet"), tmp_path / "m.pt")
    before = torch.get_rng_state()
    load_checkpoint(path)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["m", "m.pth", "m.safetensor", "m.h5"])
def test_other_suffixes_are_refused_by_naming_the_two(name: str, make: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.safetensors or \.pt"):
        save_model(make(), tmp_path / name)


def test_an_existing_file_is_kept_unless_it_may_be_replaced(make: Any, tmp_path: Path) -> None:
    path = save_model(make(seed=0), tmp_path / "m.pt")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        save_model(make(seed=1), path)
    assert path.read_bytes() == before
    assert load_checkpoint(save_model(make(seed=1), path, overwrite=True)).hash == make(seed=1).hash


def test_places_that_cannot_be_written(make: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(OutputError, match="in the way"):
        save_model(make(), tmp_path / "file" / "m.pt")
    with pytest.raises(OutputError, match="is a folder"):
        save_model(make(), tmp_path / "folder.pt", overwrite=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_old_file(
    suffix: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_model(make(seed=0), tmp_path / f"m{suffix}")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        save_model(make(seed=1), path, overwrite=True)
    assert load_checkpoint(path).hash == make(seed=0).hash
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    value: float, make: Any, tmp_path: Path
) -> None:
    model = make("lenet")
    model.network.conv2.weight.data[0, 0, 0, 0] = value
    with pytest.raises(ModelError, match=r"NaN or infinite \('conv2.weight'\)"):
        save_model(model, tmp_path / "m.pt")
    assert not (tmp_path / "m.pt").exists()
    path = write_checkpoint(model.card, model.network.state_dict(), tmp_path / "m.pt")
    assert "'conv2.weight'" in refusal(load_checkpoint, path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("load", [load_checkpoint, load_model])
def test_files_that_are_no_model(suffix: str, load: Callable[[Any], Any], make: Any, tmp_path: Path) -> None:
    path = save_model(make("lenet"), tmp_path / f"model{suffix}")
    assert f"did you mean 'model{suffix}'" in refusal(load, tmp_path / f"modle{suffix}")
    whole = path.read_bytes()
    for name, content in {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "start": whole[:20],
        "short": whole[:-3],
        "text": b"not a model at all\n" * 40,
        "image": b"\x89PNG\r\n\x1a\n" + bytes(200),
    }.items():
        bad = tmp_path / f"{name}{suffix}"
        bad.write_bytes(content)
        assert ("empty" if name == "empty" else "damaged") in refusal(load, bad)


def test_a_folder_is_no_model_file(tmp_path: Path) -> None:
    assert "is a folder" in refusal(load_checkpoint, tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_flipped_bit_in_the_weights_is_noticed(suffix: str, make: Any, tmp_path: Path) -> None:
    path = save_model(make("lenet"), tmp_path / f"m{suffix}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refusal(load_checkpoint, path)


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


def test_a_whole_pickled_module_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    said = refusal(load_model, tmp_path / "whole.pt")
    assert "torch.nn.modules.linear.Linear" in said
    assert "state_dict()" in said


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The file with its card changed, and everything else as it was."""
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        change(content["advkit"])
        torch.save(content, path)
    else:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        card = json.loads(metadata["advkit"])
        change(card)
        tensors = safetensors.torch.load_file(path)
        safetensors.torch.save_file(tensors, path, {**metadata, "advkit": json.dumps(card)})
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2, "advkit": "7.8.9"}, "reads up to 1; upgrade to advkit 7.8.9"),
        ({"role": "wizard"}, "role"),
        ({"schema": "other/model"}, "schema"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"shape": [1, 8]}, "shape"),
        ({"shape": [0, 8, 8]}, "each 1 or more"),
        ({"preprocessing": {"mean": [0.1, 0.2]}}, "one value for each of 1 channels"),
        ({"preprocessing": {"std": [0.0]}}, "must be positive"),
        ({"preprocessing": {"pixel_range": [1, 0]}}, "the smaller first"),
        ({"labels": ["a"]}, "1 labels for 10 classes"),
        ({"architecture": "mpl"}, "did you mean 'mlp'"),
        ({"role": "detector"}, "calls a classifier architecture"),
        ({"config": {"hidden": [-1]}}, "greater than or equal to 1"),
        ({"architecture": "lenet"}, "'conv1.weight' is missing"),
        ({"config": {"hidden": [256]}}, "'layers.3.weight' is 256x256 where 10x256 is wanted"),
        ({"classes": 9}, "'layers.5.weight' is 10x256 where 9x256 is wanted"),
    ],
)
def test_cards_that_are_wrong_or_belong_to_other_weights(
    suffix: str, change: dict[str, Any], said: str, make: Any, tmp_path: Path
) -> None:
    path = rewritten(save_model(make(), tmp_path / f"m{suffix}"), lambda card: card.update(change))
    assert said in refusal(load_checkpoint, path)


def test_a_card_that_is_no_json(make: Any, tmp_path: Path) -> None:
    for number, raw in enumerate(("{", "[]", "3")):
        path = tmp_path / f"{number}.safetensors"
        safetensors.torch.save_file({"w": torch.zeros(2)}, path, {"advkit": raw})
        assert "card" in refusal(load_checkpoint, path)


def test_tensors_missing_or_too_many_are_named(make: Any, tmp_path: Path) -> None:
    model = make()
    state = model.network.state_dict()
    surplus = write_checkpoint(model.card, {**state, "extra": torch.zeros(2)}, tmp_path / "surplus.pt")
    assert "'extra' is unexpected" in refusal(load_checkpoint, surplus)
    del state["layers.3.bias"]
    lacking = write_checkpoint(model.card, state, tmp_path / "lacking.safetensors")
    assert "'layers.3.bias' is missing" in refusal(load_checkpoint, lacking)


def test_foreign_wrappings_of_a_state_dict(make: Any, tmp_path: Path) -> None:
    state = dict(make().network.state_dict())
    path = tmp_path / "foreign.pth"
    for content in (
        state,
        {"state_dict": state, "epoch": 3},
        {"state_dict": [state]},
        {"model": state},
        [{"net": state}],
        {"optimizer": {"lr": 0.1}, "model_state_dict": state},
    ):
        torch.save(content, path)
        card, found = read_checkpoint(path)
        assert card is None
        assert found.keys() == state.keys()
        assert "without a card" in refusal(load_checkpoint, path)


@pytest.mark.parametrize("content", [{}, [], {"epoch": 1}, {"state_dict": [{}, {}]}, torch.zeros(3), 7])
def test_files_without_a_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    assert "holds no state dict" in refusal(read_checkpoint, tmp_path / "other.pt")
