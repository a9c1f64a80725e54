"""What tests of several parts use: places, small models and images, and truths to compare with."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

# Tests run beside each other. PyTorch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from scipy.stats import beta

from advkit.core import rng
from advkit.core.progress import Progress, Task
from advkit.data.data import Data
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build
from advkit.report import charts

# The same examples in every run, on a machine of any speed.
settings.register_profile("advkit", derandomize=True, deadline=None, database=None)
settings.load_profile("advkit")


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test works in a folder of its own, with a model store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))


@pytest.fixture
def coarse() -> Iterator[None]:
    """PyTorch may compute float32 in something coarser."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


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
def drawn() -> Callable[[str], dict[str, list[tuple[float, float]]]]:
    """Reads the lines of a chart: by name, their points as shares of the width and height of the frame."""

    def numbers(text: str) -> list[float]:
        return [float(number) for number in re.findall(r"-?[0-9.]+", text)]

    def of(svg: str) -> dict[str, list[tuple[float, float]]]:
        paths = ElementTree.fromstring(svg).findall("path")
        (_, top, bottom) = next(numbers(one.get("d", "")) for one in paths if "V" in one.get("d", ""))
        left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
        made = {}
        for path in paths:
            if (title := path.find("title")) is not None:
                flat = numbers(path.get("d", ""))
                made[title.text or ""] = [
                    ((x - left) / (right - left), (bottom - y) / (bottom - top))
                    for x, y in zip(flat[::2], flat[1::2], strict=True)
                ]
        return made

    return of


@pytest.fixture(scope="session")
def built() -> Callable[..., Model]:
    """Makes a model that has learnt nothing, the same for the same seed."""

    def of(
        arch: str,
        role: str = "classifier",
        classes: int | None = None,
        *,
        shape: tuple[int, int, int] = (1, 8, 8),
        seed: int = 0,
        about: dict[str, Any] | None = None,
        **config: Any,
    ) -> Model:
        with rng.scope("cpu", seed, "built"):
            network = build(arch, shape=shape, classes=classes, config=config)
        facts = {"role": role, "architecture": arch, "config": config, "shape": shape, "classes": classes}
        return Model(network, ModelCard(**facts, **(about or {}))).eval()

    return of


def pixels(n: int, seed: int) -> torch.Tensor:
    """(n, 1, 8, 8) of 8-bit levels."""
    return (rng.uniform(rng.keys(seed, "x", torch.arange(n)), (1, 8, 8)) * 255).round() / 255


@pytest.fixture
def thirds(built: Callable[..., Model]) -> tuple[Model, Callable[..., Data]]:
    """A linear model of three classes that occur alike, and what makes images, labelled by its answers."""
    model = built("mlp", "classifier", 3, hidden=())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20)
        model.network.layers[-1].bias -= model(pixels(200, 9)).mean(0)

    def images(n: int, seed: int, split: str) -> Data:
        x = pixels(n, seed)
        with torch.no_grad():
            labels = model(x).argmax(1)
        return Data("toy", split, (x * 255).round().to(torch.uint8), labels, ("a", "b", "c"), torch.arange(n))

    return model, images


@pytest.fixture(scope="session")
def save_npz() -> Callable[[Data, Data], None]:
    """Saves training and test images as ``npz:toy.npz``."""

    def save(train: Data, test: Data) -> None:
        arrays = {"x_train": train.images, "x_test": test.images}
        np.savez("toy.npz", **arrays, y_train=train.labels, y_test=test.labels)

    return save


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
def kept() -> Callable[[Path, dict[str, type[BaseModel]]], None]:
    """Asserts that parameters have the defaults and limits of a text file: published figures depend on them.

    With ADVKIT_KEEP=1 it writes the file anew.
    """

    def shown(field: FieldInfo) -> str:
        limits = [repr(one) for one in field.metadata if type(one).__name__ in ("Ge", "Gt", "Le", "Lt")]
        return " ".join(
            ["" if field.is_required() else repr(field.get_default(call_default_factory=True)), *limits]
        )

    def compare(path: Path, configs: dict[str, type[BaseModel]]) -> None:
        lines = [
            f"{name}.{key} {shown(field)}".rstrip()
            for name, config in sorted(configs.items())
            for key, field in config.model_fields.items()
        ]
        if os.environ.get("ADVKIT_KEEP"):
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        assert set(path.read_text("utf-8").splitlines()) <= set(lines)  # what is new is kept from now on

    return compare
