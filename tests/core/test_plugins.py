"""Parts that other packages bring through the entry-point group ``advkit``."""

from importlib import metadata

import pytest

from advkit.core.errors import ConfigError
from advkit.core.registry import Registry


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Makes a plug-in of some source text, and a registry that asks for it."""

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        point = metadata.EntryPoint("their parts", name, "advkit")
        monkeypatch.setattr(metadata, "entry_points", lambda group: (point,))
        return Registry("thing")

    return make


def test_a_plug_in_that_fails_is_named_every_time(plugin):
    things = plugin("failing_parts", "raise RuntimeError('no such device')")
    things.register("ours", summary="one of ours")(object())
    for _ in range(2):
        with pytest.raises(ConfigError, match="failing_parts"):
            list(things)
        with pytest.raises(ConfigError, match="failing_parts"):
            things.get("ours")


def test_a_plug_in_that_works_is_imported_once(plugin):
    text = "import builtins\nbuiltins.imported = getattr(builtins, 'imported', 0) + 1"
    things = plugin("working_parts", text)
    things.register("ours", summary="one of ours")("thing")
    assert [entry.name for entry in things] == ["ours"] and things.get("ours") == "thing"
    import builtins

    assert builtins.imported == 1
    del builtins.imported
