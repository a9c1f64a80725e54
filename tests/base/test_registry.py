import importlib
import sys

import pytest

from advkit.errors import ConfigError
from advkit.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, one of which registers a thing."""
    folder = tmp_path / "things_for_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text(
        "from things_registry_for_a_test import THINGS\n"
        "@THINGS.register('alpha', summary='the first', source='a paper', aliases=('a',), colour='red')\n"
        "class Alpha: ...\n"
    )
    (tmp_path / "things_registry_for_a_test.py").write_text(
        "from advkit.registry import Registry\nTHINGS = Registry('thing', 'things_for_a_test')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("things_registry_for_a_test").THINGS
    for name in [name for name in sys.modules if name.startswith("things_")]:
        del sys.modules[name]


def test_is_lazy_and_finds_its_own_files(package):
    assert "things_for_a_test.one" not in sys.modules
    entry = package.entry("a")
    assert (entry.name, entry.summary, entry.facts) == ("alpha", "the first", {"colour": "red"})
    assert package.get("alpha") is entry.thing
    assert [entry.name for entry in package] == ["alpha"] and "a" in package and "b" not in package


def test_unknown_names_get_a_suggestion(package):
    with pytest.raises(ConfigError, match=r"'alhpa' \(did you mean 'alpha'\?\); known: alpha"):
        package.get("alhpa")


def test_families_say_what_they_are():
    registry = Registry("thing", "advkit.data")

    @registry.family("theirs")
    def made(name):
        """The thing of theirs
        called ``name``.

        Raises:
            ConfigError: there is none.
        """

    assert registry.families == {"theirs": "The thing of theirs called ``name``."}


def test_a_name_that_is_taken_is_a_mistake_of_ours():
    registry = Registry("thing", "advkit.data")
    registry.register("x", summary="one", aliases=("y",))(object())
    for name in ("x", "y"):
        with pytest.raises(ValueError, match="registered twice"):
            registry.register(name, summary="two")(object())
