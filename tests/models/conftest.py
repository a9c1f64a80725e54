from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advkit.core import rng
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import ARCHITECTURES, build
from advkit.models.store import Store

Make = Callable[..., Model]
CONDITIONAL = {"conditional-generator", "projection-discriminator", "auxiliary-discriminator"}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here touches the store of whoever runs the tests."""
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def subjects() -> Path:
    """The folder of public checkpoints."""
    root = os.environ.get("ADVKIT_SUBJECTS")
    if not root:
        pytest.skip("set ADVKIT_SUBJECTS to the folder with the public checkpoints")
    return Path(root)


@pytest.fixture
def make() -> Make:
    """Builds a small model: ``make("mlp", seed=1, notes="...")``; other keywords go into the card."""

    def of(architecture: str = "mlp", seed: int = 0, **card: Any) -> Model:
        role = ARCHITECTURES.entry(architecture).facts["role"]
        labelled = role == "classifier" or architecture in CONDITIONAL
        facts: dict[str, Any] = {"shape": (1, 8, 8), "classes": 10 if labelled else None, **card}
        full = ModelCard(role=role, architecture=architecture, **facts)
        with rng.scope("cpu", seed, "test"):
            network = build(architecture, shape=full.shape, classes=full.classes, config=full.config)
        return Model(network, full).eval()

    return of
