"""One tiny GAN and one tiny classifier, which most systems build on, and the command line in this process."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import advkit
from advkit.cli.app import app

Shell = Callable[..., dict[str, Any]]

GAN = {
    "data": "digits",
    "arch": "mlp-gan",
    "conditional": "projection",
    "steps": 300,
    "sample_every": 300,
    "rate_generator": 4e-3,
    "rate_discriminator": 2e-3,
    "generator": {"hidden": [64], "latent_dim": 16, "dropout": 0},
    "discriminator": {"hidden": [64], "dropout": 0.2},
}


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all systems share, with the model store in it."""
    return tmp_path_factory.mktemp("systems")


@pytest.fixture(autouse=True)
def own_places(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test works in a folder of its own, with the shared model store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(place / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    yield


@pytest.fixture(scope="session")
def shell() -> Shell:
    """Runs one command line and returns its figures, or fails with what it printed."""

    def call(line: str, code: int = 0) -> dict[str, Any]:
        words = shlex.split(line)
        assert words[0] == "advkit"
        found = CliRunner().invoke(app, [*words[1:], "--json", "-"], prog_name="advkit")
        assert found.exit_code == code, found.output
        figures: dict[str, Any] = json.loads(found.stdout)
        return figures

    return call


@pytest.fixture(scope="session")
def gan(place: Path) -> str:
    """A conditional GAN of the bundled digits, by the prefix of its models in the store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVKIT_HOME", str(place / "home"))
        advkit.gan_train(name="tiny", out=place / "gan", progress=False, **GAN)
    return "tiny"


@pytest.fixture(scope="session")
def classifier(place: Path) -> str:
    """A classifier of the bundled digits that gets most of them right, by its name in the store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVKIT_HOME", str(place / "home"))
        advkit.train(
            data="digits",
            arch="mlp",
            architecture={"hidden": [24]},
            epochs=15,
            checks=1,
            name="tiny-classifier",
            out=place / "classifier",
            progress=False,
        )
    return "tiny-classifier"
