"""What tests of several parts use."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from scipy.stats import beta

from advkit.core.progress import Progress, Task

# Tests run beside each other. PyTorch reads this when it is imported, which nothing above does.
os.environ.setdefault("OMP_NUM_THREADS", "1")


class Stopping(Progress, Task):
    """Ends the process, as it were, when told of progress for the second time."""

    def __init__(self) -> None:
        self.seen = 0

    def task(self, *args: Any, **kwargs: Any) -> Task:
        return self

    def advance(self, n: int = 1, **facts: float | str) -> None:
        self.seen += 1
        if self.seen == 2:
            raise KeyboardInterrupt


@pytest.fixture
def stopping() -> Progress:
    return Stopping()


@pytest.fixture(scope="session")
def share() -> Callable[[int, int], list[float]]:
    """The percentage of ``k`` of ``n`` and the ends of its exact 95 % interval."""

    def interval(k: int, n: int) -> list[float]:
        low, high = beta.ppf([0.025, 0.975], [k or 1, k + 1], [n - k + 1, n - k or 1])
        return [100 * k / n, 100 * low if k else 0.0, 100 * high if k < n else 100.0]

    return interval


@pytest.fixture(scope="session")
def printed() -> Callable[..., None]:
    """Asserts that the numbers in a text are these, each rounded to the places with which it stands there."""

    def compare(text: object, *truth: float) -> None:
        words = re.findall(r"(?<![\w.-])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", str(text))
        assert len(words) == len(truth), (text, truth)
        for word, value in zip(words, truth, strict=True):
            said = Decimal(word.rstrip(",").replace(",", ""))
            assert abs(float(said) - value) <= 0.5001 * 10.0 ** said.as_tuple().exponent, (text, truth)

    return compare


@pytest.fixture(scope="session")
def declared() -> Callable[[type[BaseModel]], str]:
    """The parameters that a configuration has of its own, as ``name=default>=least<most``."""
    signs = {"Ge": ">=", "Gt": ">", "Le": "<=", "Lt": "<"}

    def limits(field: FieldInfo) -> str:
        known = ((type(one).__name__, one) for one in field.metadata)
        return "".join(f"{signs[kind]}{getattr(one, kind.lower())}" for kind, one in known if kind in signs)

    def text(kind: type[BaseModel]) -> str:
        own = ((name, kind.model_fields[name]) for name in kind.__annotations__ if name in kind.model_fields)
        return " ".join(
            f"{name}={field.default}{limits(field)}" for name, field in own if field.default != {}
        )

    return text
