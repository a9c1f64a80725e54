from __future__ import annotations

from typing import Any

import pytest
import torch

from advkit.core.config import validate
from advkit.core.progress import Progress, Task
from advkit.data.load import load_data
from advkit.models.model import Model
from advkit.training.objective import OBJECTIVES, Objective


@pytest.fixture(scope="session")
def digits():
    return load_data("digits", "train", limit=100)


@pytest.fixture
def make(built):
    """A fresh classifier of the digits; the same for the same seed."""

    def make(arch: str = "mlp", seed: int = 0, **config: Any) -> Model:
        config = config or ({"hidden": (16,)} if arch == "mlp" else {})
        return built(arch, "classifier", 10, seed=seed, **config).train()

    return make


@pytest.fixture
def objective():
    """A registered objective with the given parameters."""

    def make(name: str, **parameters: Any) -> Objective:
        kind = OBJECTIVES.get(name)
        return kind(validate(kind.Config, parameters, name))

    return make


class Interrupted(Progress):
    """Raises KeyboardInterrupt when told of progress for the ``n``-th time."""

    def __init__(self, n: int) -> None:
        self.left = n

    def task(self, name: str, total: int, *, done: int = 0, unit: str = "step") -> Task:
        progress = self

        class Interrupting(Task):
            def advance(self, n: int = 1, **facts: float | str) -> None:
                progress.left -= 1
                if progress.left == 0:
                    raise KeyboardInterrupt

        return Interrupting()


@pytest.fixture
def interrupted():
    return Interrupted


@pytest.fixture
def same():
    """Whether two models have the same weights, bit for bit."""

    def same(one: Model, other: Model) -> bool:
        mine, theirs = one.state_dict(), other.state_dict()
        return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    return same
