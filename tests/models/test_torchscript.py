"""TorchScript: files whose code may run only when that is said, and modules in hand."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import advkit
from advkit.core.context import Context
from advkit.core.errors import ConfigError, ModelError
from advkit.data.subjects import Subject, flags
from advkit.models.foreign_settings import SubjectSettings

SHAPE = (1, 8, 8)


def scripted(seed: int, *, frozen: bool) -> Any:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        script = torch.jit.script(network)
        return torch.jit.freeze(script) if frozen else script


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.torchscript"])
def test_a_file_runs_only_where_that_is_said(name: str, frozen: bool, tmp_path: Path) -> None:
    module, path = scripted(0, frozen=frozen), tmp_path / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.save(path)
    with pytest.raises(ModelError) as caught:
        advkit.load_model(path, shape=SHAPE)
    assert all(line in str(caught.value) for line in ("--allow-torchscript", "allow_torchscript=True"))
    model = advkit.load_model(path, shape=SHAPE, allow_torchscript=True)
    x = torch.rand(3, *SHAPE)
    torch.testing.assert_close(model(x), module(x))
    settings = SubjectSettings(model=str(path), data="digits", n=20, allow_torchscript=True)
    subject = Subject.open(settings, Context())
    assert subject.facts.deterministic
    assert flags(settings, "digits").split()[-1] == "--allow-torchscript"
    with pytest.raises(ConfigError):
        advkit.load_model(path, arch="mlp", shape=SHAPE, allow_torchscript=True)
    saved = advkit.save_model(model, tmp_path / "again.pt")
    with pytest.raises(ModelError, match="state dict" if frozen else "torchscript"):
        advkit.load_model(saved)


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/constants.pkl", b"")
    with pytest.raises(ModelError, match=r"m\.pt"):
        advkit.load_model(tmp_path / "m.pt", shape=SHAPE, allow_torchscript=True)


def test_modules_in_hand_are_told_apart() -> None:
    """A frozen module has no state dict, but it has weights."""
    for frozen in (False, True):
        models = [advkit.load_model(scripted(seed, frozen=frozen), shape=SHAPE) for seed in (0, 1)]
        assert models[0].hash != models[1].hash
        assert models[0].hash == advkit.load_model(models[0].network, shape=SHAPE).hash
        x, y = torch.rand(6, *SHAPE), torch.arange(6)
        found = advkit.perturb(models[0], x, y, advkit.Threat("linf", 0.3))
        assert bool(((found - x).abs() <= 0.3 + 1e-6).all())
        assert advkit.smooth(models[0], 0.1, shape=SHAPE)
