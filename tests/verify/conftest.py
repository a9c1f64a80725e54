"""What the tests of ``advkit certify`` and ``advkit smooth`` share."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import advkit
from advkit.cli.app import app
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build


def save(name, **more):
    """The linear classifier of the digits that names the nearest mean."""
    train = advkit.load_data("digits", "train")
    x, y = train.batch(torch.arange(len(train)))
    means = torch.stack([x[y == label].mean(0).flatten() for label in range(10)])
    about = {"role": "classifier", "architecture": "mlp", "config": {"hidden": ()}, "shape": (1, 8, 8)}
    network = build("mlp", shape=(1, 8, 8), classes=10, config={"hidden": ()})
    weight, bias = network.parameters()
    with torch.no_grad():
        weight.copy_(2 * means)
        bias.copy_(-means.square().sum(1))
    advkit.save_model(Model(network, ModelCard(**about, **more, classes=10)).eval(), name)


def beside(name):
    """A module in this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def exact():
    """``exact.py``, which knows the exact minima of small networks."""
    return beside("exact")


@pytest.fixture(scope="session")
def networks():
    """``bounds/networks.py``, which draws random classifiers."""
    return beside("bounds/networks")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with this classifier as clf.pt; gives the function that saves it under other names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    save("clf.pt")
    return save


@pytest.fixture(scope="session")
def typed():
    """The exit code of a command line."""

    def run(*words):
        with pytest.raises(SystemExit) as leaving:
            app.main(list(words))
        return leaving.value.code

    return run


@pytest.fixture(scope="session")
def numbers():
    """The numbers in a text."""

    def read(text):
        return [float(one.replace(",", "")) for one in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?", text)]

    return read
