"""Registries, and what a user names as ``package.module:name``."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advkit.core.errors import ConfigError, ModelError
from advkit.core.named import is_named, named
from advkit.core.registry import Entry, Registry

FILES = {
    "things_registry.py": "from advkit.core.registry import Registry\nTHINGS = Registry('thing', 'things')\n",
    "things/__init__.py": "",
    "things/one.py": (
        "from things_registry import THINGS\n"
        "@THINGS.register('beta', summary='the first', source='a paper', aliases=('b', 'B'), colour='red')\n"
        "class Beta: ...\n"
        "assert 'alpha' not in THINGS  # which comes with the next file: asking does not import it now\n"
    ),
    "things/two.py": "from things_registry import THINGS\nTHINGS.register('alpha', summary='')(int)\n",
    "theirs.py": (
        "from things_registry import THINGS\n"
        "THINGS.register('theirs', summary='')(str)\n"
        "assert list(__import__('advkit.core.registry').core.registry.Registry('other')) == []\n"
        "end = 1\n"
    ),
    "theirs-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: 1\n",
    "theirs-1.dist-info/entry_points.txt": "[advkit]\nx = theirs:end\n",
}
ASKING = """
import sys
from pathlib import Path
from things_registry import THINGS
assert not {'things', 'theirs'} & sys.modules.keys()
entry = THINGS.entry('b')
assert (entry.name, entry.summary, entry.source) == ('beta', 'the first', 'a paper')
assert (entry.aliases, entry.facts) == (('b', 'B'), {'colour': 'red'})
assert THINGS.get('beta') is THINGS.get('B') is entry.thing is sys.modules['things.one'].Beta
assert [entry.name for entry in THINGS] == ['alpha', 'beta', 'theirs']
Path('things/three.py').write_text("raise SystemExit('asked a second time')")
assert 'b' in THINGS and 'gamma' not in THINGS
"""


def test_a_registry_finds_files_and_other_distributions_when_it_is_first_asked(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    path = {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    subprocess.run([sys.executable, "-c", ASKING], check=True, cwd=tmp_path, env=path)


NAMES = st.sampled_from(["alpha", "beta", "gamma", "delta"])


@settings(max_examples=60)
@given(st.lists(st.tuples(NAMES, st.lists(NAMES, max_size=2, unique=True)), max_size=4), NAMES)
def test_a_name_means_one_thing(wanted, asked):
    registry, meant = Registry("thing"), {}
    for name, aliases in wanted:
        if {name, *aliases} & meant.keys():
            with pytest.raises(ValueError):
                registry.register(name, summary="", aliases=tuple(aliases))(object())
        else:
            thing = registry.register(name, summary="", aliases=tuple(aliases))(object())
            meant |= dict.fromkeys((*aliases, name), (name, thing))
    assert [(entry.name, entry.thing) for entry in registry] == sorted(
        set(meant.values()), key=lambda e: e[0]
    )
    assert (asked in registry) == (asked in meant)
    if asked in meant:
        assert registry.get(asked) is meant[asked][1] and registry.entry(asked).name == meant[asked][0]
    else:
        with pytest.raises(ConfigError, match=asked):
            registry.entry(asked)


def test_unknown_names_get_a_suggestion():
    registry = Registry("thing")
    registry.register("alpha", summary="", aliases=("first",))(object())
    for name, near in (("alhpa", "alpha"), ("fisrt", "first")):
        with pytest.raises(ConfigError, match=f"{name}.*{near}.*alpha$"):
            registry.get(name)


def test_families():
    registry = Registry("thing")

    @registry.family("theirs")
    def made(name):
        """The thing of theirs
        called ``name``.

        Raises:
            ConfigError: there is none.
        """
        return Entry(f"theirs:{name}", name, "")

    registry.family("a")(lambda name: Entry("", "", ""))
    assert registry.families == {"a": "", "theirs": "The thing of theirs called ``name``."}
    assert list(registry.families) == ["a", "theirs"] and list(registry) == []
    assert registry.get("theirs:b:c") == "b:c"
    assert "theirs" not in registry and "others:b" not in registry
    with pytest.raises(ValueError):
        registry.family("theirs")(made)
    with pytest.raises(FrozenInstanceError):
        registry.entry("theirs:b").name = "other"


@pytest.mark.parametrize("text", ["a:b", "a.b.c:d.e", "_a1:B_2"])
@pytest.mark.parametrize(
    "wrong", ["", "a", "a:", ":b", "1a:b", "a:1b", "a:b:c", "a/b:c", "a:b c", "a:b\n", "a-b:c"]
)
def test_what_reads_like_a_name(text, wrong):
    assert is_named(text) and not is_named(wrong)


def test_a_name_of_the_current_folder(tmp_path, monkeypatch):
    for folder, value in (("here", 1), ("elsewhere", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "named_in_a_test.py").write_text(
            f"class A:\n    b = {value}\nif A.b > 2: 1 / 0\n"
        )
    (tmp_path / "here" / "broken_in_a_test.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "here")
    before = list(sys.path)
    assert named("named_in_a_test:A.b", ModelError, "try again") == 1
    assert named("named_in_a_test:A", ModelError, "try again").b == 1
    assert sys.path == [str(tmp_path / "here"), *before]
    for text in ("named_in_a_test:B", "named_in_a_test:A.c", "not_there_at_all:x", "broken_in_a_test:x"):
        with pytest.raises(ModelError, match="try again"):
            named(text, ModelError, "try again")
