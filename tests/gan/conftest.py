from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from advkit.core import rng
from advkit.data.data import Data
from advkit.gan.settings import GanTraining

Config = Callable[..., GanTraining]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    """Nobody waits for the disk, or looks at many samples."""
    monkeypatch.setattr("os.fsync", lambda file: None)
    monkeypatch.setattr("advkit.gan.sample_logger.WATCHED", 120)


@pytest.fixture
def data():
    """40 images of 8x8 random levels."""
    images = rng.integers(torch.arange(40), (1, 8, 8), 256).to(torch.uint8)
    return Data("toy", "train", images, torch.arange(40) % 2, ("even", "odd"), torch.arange(40))


SMALL = {
    "mlp-gan": {"generator": {"hidden": (16, 24)}, "discriminator": {"hidden": (16,)}},
    "dcgan": {"generator": {"width": 8}, "discriminator": {"width": 8}},
    "residual-gan": {"generator": {"width": 8}, "discriminator": {"width": 8}},
    "upsampling-gan": {"generator": {"channels": (8, 8)}, "discriminator": {"channels": (8, 8)}},
    "dense-conv-gan": {"generator": {"channels": (8, 8)}, "discriminator": {"hidden": 8}},
    "conv-gan": {"generator": {"channels": (16, 8, 8)}, "discriminator": {"channels": (8, 8)}},
}


@pytest.fixture(scope="session")
def small():
    """A short run of small networks; keywords change it."""

    def of(**changes: object) -> GanTraining:
        arch = str(changes.get("arch", "mlp-gan"))
        values = {"arch": arch, "steps": 12, "batch_size": 8, "sample_every": 5, "checkpoint_every": 3}
        return GanTraining.model_validate(values | SMALL.get(arch, {}) | changes)

    return of


config = pytest.fixture(name="config")(lambda small: small)
