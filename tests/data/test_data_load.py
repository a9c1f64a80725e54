from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import advkit
from advkit.core.errors import ConfigError, DataError
from advkit.data.dataset import data_folder
from advkit.data.load import load_data

MODULE = """
import torch
from advkit.data.load import as_data
from advkit.core.errors import DataError

def pair(split):
    n = 4 if split == "train" else 2
    return torch.full((n, 1, 3, 3), 0.5), torch.arange(n)

def data(split):
    return as_data(pair(split), name="own")

def nothing(split): return None
def unwilling(): return None
def failing(split): return 1 / 0
def telling(split): raise DataError("the disk is in the drawer")
def nan(split): return torch.full((2, 1, 3, 3), float("nan")), [0, 1]
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current folder, which is on no path."""
    (tmp_path / "own_data_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "own_data_module"
    sys.modules.pop("own_data_module", None)


@pytest.mark.parametrize("split", ["", "validation", "all", "Test"])
def test_unknown_split(split: str) -> None:
    assert advkit.load_data is load_data
    with pytest.raises(ConfigError, match="train"):
        load_data("digits", split)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("digit", "'digits'"),
        ("cifar-1O", "'cifar-10'"),
        ("", "''"),
        ("floder:a/b", "'folder'"),
        ("no_such_module_here:function", "no_such_module_here"),
    ],
)
def test_unknown_names(name: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(advkit.UserError, match=key):
        load_data(name)
    (tmp_path / "set.npz").touch()
    (tmp_path / "set.csv").touch()
    files = (tmp_path / "set.npz", "npz:"), (tmp_path / "set.csv", "csv:"), (tmp_path, "folder:")
    for path, prefix in files:
        with pytest.raises(ConfigError, match=f"{prefix}{path}"):
            load_data(str(path))


def test_functions(module: str) -> None:
    pair = load_data(f"{module}:pair", "train")
    assert (pair.name, pair.split, len(pair)) == (f"{module}:pair", "train", 4)
    assert len(load_data(f"{module}:pair", limit=1)) == 1
    assert load_data(f"{module}:data").name == "own"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("pairs", "'pair'"),
        ("nothing", "NoneType"),
        ("unwilling", "'split'"),
        ("failing", "ZeroDivisionError"),
        ("telling", "^the disk is in the drawer$"),
        ("nan", "NaN"),
        ("number", "callable"),
    ],
)
def test_faults_of_functions(module: str, function: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"{module}:{function}")


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ADVKIT_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert data_folder("elsewhere") == Path("elsewhere")
    monkeypatch.setenv("ADVKIT_DATA", "")
    assert data_folder() == Path.home() / ".advkit" / "data"
    monkeypatch.delenv("ADVKIT_DATA")
    assert data_folder() == Path.home() / ".advkit" / "data"


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    load_data("digits").holdout(0.1)
    assert torch.equal(before, torch.get_rng_state())
