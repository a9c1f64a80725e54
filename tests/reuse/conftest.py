from __future__ import annotations

from pathlib import Path

import pytest

from advkit import rng
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build
from advkit.models.store import Store

CONFIG = {"channels": (4, 8)}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and the store of whoever runs the tests stay as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))


@pytest.fixture
def discriminator() -> Model:
    """In the store as ``critic``."""
    with rng.scope("cpu", 7, "critic"):
        network = build("conv-gan-discriminator", shape=(1, 8, 8), config=CONFIG)
    card = ModelCard(
        role="discriminator", architecture="conv-gan-discriminator", config=CONFIG, shape=(1, 8, 8)
    )
    model = Model(network, card)
    Store().add(model, "critic")
    return model
