from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import advkit
from advkit.data.dataset import data_folder
from advkit.data.load import load_data
from advkit.errors import ConfigError, DataError

MODULE = """
import torch
from advkit.data.load import as_data
from advkit.errors import DataError

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


def test_public_name() -> None:
    assert advkit.load_data is load_data


@pytest.mark.parametrize("split", ["", "validation", "all", "Test"])
def test_unknown_split(split: str) -> None:
    with pytest.raises(ConfigError, match="use train or test"):
        load_data("digits", split)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "did you mean 'digits'"),
        ("cifar-1O", "did you mean 'cifar-10'"),
        ("", "no data set called ''"),
        ("floder:a/b", "did you mean 'folder'"),
        ("no_such_module_here:function", "cannot import 'no_such_module_here'"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(advkit.UserError, match=message):
        load_data(name)


def test_bare_paths_are_told_their_prefix(tmp_path: Path) -> None:
    (tmp_path / "set.npz").touch()
    with pytest.raises(ConfigError, match=r"write npz:.*set\.npz"):
        load_data(str(tmp_path / "set.npz"))
    with pytest.raises(ConfigError, match="write folder:"):
        load_data(str(tmp_path))


def test_functions(module: str) -> None:
    pair = load_data(f"{module}:pair", "train")
    assert (pair.name, pair.split, len(pair)) == (f"{module}:pair", "train", 4)
    assert len(load_data(f"{module}:pair", limit=1)) == 1
    assert load_data(f"{module}:data").name == "own"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("pairs", "did you mean 'pair'"),
        ("nothing", "returned NoneType"),
        ("unwilling", "unexpected keyword argument 'split'"),
        ("failing", "ZeroDivisionError: division by zero"),
        ("telling", "^the disk is in the drawer$"),
        ("nan", "hold NaN"),
        ("number", "not callable"),
    ],
)
def test_faults_of_functions(module: str, function: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"{module}:{function}")


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ADVKIT_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert data_folder("elsewhere") == Path("elsewhere")
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("ADVKIT_DATA")
        else:
            monkeypatch.setenv("ADVKIT_DATA", unset)
        assert data_folder() == Path.home() / ".advkit" / "data"


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    load_data("digits").holdout(0.1)
    assert torch.equal(before, torch.get_rng_state())
