"""The examples in docstrings give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import advkit

TOP = Path(advkit.__file__).parent
EXAMPLES = [
    ".".join(("advkit", *file.relative_to(TOP).with_suffix("").parts))
    for file in sorted(TOP.rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name == "advkit.listings":
        pytest.importorskip("art", reason="the example lists an attack of ART: pip install 'advkit[art]'")
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed
