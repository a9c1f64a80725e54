"""Parameters keep the defaults and limits with which figures were published."""

from pathlib import Path
from typing import Any

from advkit.models.network import ARCHITECTURES


def test_architectures(kept: Any) -> None:
    configs = {entry.name: entry.thing.Config for entry in ARCHITECTURES}
    kept(Path(__file__).with_name("defaults.txt"), configs)
