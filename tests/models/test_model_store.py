from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from advkit import load_model
from advkit.core import files
from advkit.core.errors import ConfigError, ModelError, OutputError
from advkit.models.card import ModelCard, Parent, Relation
from advkit.models.model import Model
from advkit.models.network import build
from advkit.models.store import Kin, Store

CARD = ModelCard(role="classifier", architecture="mlp", config={"hidden": []}, shape=(1, 2, 2), classes=2)


def small(value: float, notes: str = "", lineage: Any = ()) -> Model:
    network = build("mlp", shape=CARD.shape, classes=2, config=CARD.config)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, value)
    return Model(network, CARD.model_copy(update={"notes": notes, "lineage": lineage}))


NAMES = st.sampled_from(["m", "m-1", "m.1", "M", "cafe", "0" * 4, "x" * 100])


class Stores(RuleBasedStateMachine):
    """Any changes, against two dictionaries: what names mean, and the notes of each model."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.names: dict[str, str] = {}
        self.notes: dict[str, str] = {}

    def teardown(self) -> None:
        assert list(self.root.glob("*/.*")) == []
        shutil.rmtree(self.root)

    @property
    def store(self) -> Store:
        return Store(self.root)  # as if in another process each time

    @rule(name=NAMES, value=st.integers(0, 3), notes=st.sampled_from(["old", "new"]))
    def add(self, name: str, value: int, notes: str) -> None:
        digest = self.store.add(small(value, notes), name)
        assert digest == small(value).hash
        self.names[name], self.notes[digest] = digest, notes

    @precondition(lambda self: self.notes)
    @rule(data=st.data(), length=st.sampled_from([4, 8, 63]))
    def a_hash_that_begins_alike(self, data: Any, length: int) -> None:
        digest = data.draw(st.sampled_from(sorted(self.notes)))
        twin = digest[:length] + "0" * (64 - length)
        self.store.path(digest).with_name(f"{twin}.safetensors").write_bytes(
            self.store.path(digest).read_bytes()
        )
        self.notes.setdefault(twin, self.notes[digest])

    @precondition(lambda self: self.names)
    @rule(data=st.data(), content=st.sampled_from(["", "[]", '{"hash": "../../x"}', '{"hash": 3}', "bit"]))
    def damage_a_name(self, data: Any, content: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.names)))
        path = self.root / "names" / f"{name}.json"
        path.write_text(path.read_text().replace("a", "b", 1) if content == "bit" else content)
        assert name in self.store.damaged and name not in self.store.names()
        with pytest.raises(ModelError, match="damaged"):
            self.store.get(name)
        self.store.remove(name)
        assert self.store.damaged == []
        del self.names[name]

    def meant(self, asked: str) -> Any:
        """The hash, or what is to be raised."""
        found = [digest for digest in self.notes if digest.startswith(asked)] if len(asked) >= 4 else []
        if asked in self.names:
            return self.names[asked]
        return ConfigError if len(found) > 1 else found[0] if found else ModelError

    @rule(data=st.data(), length=st.sampled_from([0, 3, 4, 5, 9, 63, 64]), name=NAMES, remove=st.booleans())
    def ask(self, data: Any, length: int, name: str, remove: bool) -> None:
        digests = sorted({*self.notes, "f" * 64})
        asked = data.draw(st.sampled_from(digests))[:length] if length else name
        meant = self.meant(asked)
        others = [other for other, digest in self.names.items() if digest == meant and other != asked]
        if remove and meant in self.notes and asked not in self.names and others:
            with pytest.raises(ConfigError, match=others[0]):
                self.store.remove(asked)
        elif meant not in self.notes:
            for do in (
                self.store.remove, self.store.hash, self.store.get, self.store.path, self.store.family
            ):  # fmt: skip
                with pytest.raises(meant):
                    do(asked)
        elif remove:
            self.store.remove(asked)
            self.names.pop(asked, None)
            if not others:
                del self.notes[meant]
        else:
            assert self.store.hash(asked) == meant
            assert self.store.path(asked) == self.root / "objects" / f"{meant}.safetensors"
            if meant in {small(value).hash for value in range(4)}:
                assert self.store.get(asked).card.notes == self.notes[meant]
            else:  # a copy under a name that is not its own
                for load in (self.store.get, lambda name: load_model(name, store=self.store)):
                    with pytest.raises(ModelError, match="another model"):
                        load(asked)

    @invariant()
    def listings(self) -> None:
        assert list(self.store.names().items()) == sorted(self.names.items())
        named = list(dict.fromkeys(self.names[name] for name in sorted(self.names)))
        rest = sorted(self.notes.keys() - set(named))
        listed = [(names, digest, card and card.notes) for names, digest, card in self.store.cards()]
        assert listed == [
            (
                tuple(name for name in sorted(self.names) if self.names[name] == digest),
                digest,
                self.notes[digest],
            )
            for digest in [*named, *rest]
        ]


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=25, stateful_step_count=12)


def test_the_default_store_is_under_advkit_home(tmp_path: Path) -> None:
    digest = Store().add(small(1), "one")
    assert (tmp_path / "home" / "models" / "names" / "one.json").exists()
    assert load_model("one").hash == digest


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "a\\b", ".hidden", "-x", "a b", "a\n", "ü", "x" * 101, "m.pt"]
)
def test_names_that_could_be_paths_are_refused(name: str, store: Store, make: Any) -> None:
    with pytest.raises(ConfigError):
        store.add(make(), name)
    assert not store.root.exists()


def test_export_and_import(store: Store, make: Any, tmp_path: Path) -> None:
    digest = store.add(make(notes="kept"), "m")
    path = store.export("m", tmp_path / "m.pt")
    with pytest.raises(OutputError):
        store.export("m", path)
    store.export("m", path, overwrite=True)
    other = Store(tmp_path / "other")
    assert other.import_(path, "again") == digest
    assert other.get("again").card.notes == "kept"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError):
        other.import_(path, "broken")
    assert other.names() == {"again": digest}
    torch.save(make("lenet").network.state_dict(), tmp_path / "foreign.pth")
    store.import_(tmp_path / "foreign.pth", "named", arch="lenet")
    assert store.get("named").card.architecture == "lenet"
    with pytest.raises(ModelError):
        store.import_(tmp_path / "foreign.pth", "wrong", arch="mlp")


@settings(max_examples=25)
@given(
    drawn=st.lists(
        st.dictionaries(st.integers(0, 6), st.sampled_from(["ema-of", "fine-tuned-from"]), max_size=2),
        min_size=1,
        max_size=5,
    ),
    asked=st.integers(0, 4),
)
def test_a_family_is_every_oldest_ancestor_with_all_below_it(
    tmp_path_factory: Any, drawn: list[dict[int, Relation]], asked: int
) -> None:
    """Any lineages: parents that are not there (5 and 6), several parents, circles, models of their own."""
    store = Store(tmp_path_factory.mktemp("store"))
    hashes = {number: small(number).hash for number in range(7)}
    known = dict(enumerate(drawn))
    for number, parents in known.items():
        lineage = tuple(
            Parent(relation=relation, hash=hashes[parent], name=f"old-{parent}")
            for parent, relation in parents.items()
        )
        store.add(small(number, lineage=lineage), f"m{number}")
    asked %= len(drawn)
    numbers = {digest: number for number, digest in hashes.items()}

    def below(number: int, relation: Relation | None, path: tuple[int, ...]) -> Any:
        children = {
            (child, parents[number])
            for child, parents in known.items()
            if number in parents and child not in path
        }
        children -= {(number, kind) for _, kind in children}
        inside = {below(child, kind, (*path, child)) for child, kind in children}
        called = f"m{number}" if number in known else f"old-{number}"
        return number, called, number in known, relation, frozenset(inside)

    def tops(number: int, path: tuple[int, ...]) -> set[int]:
        above = [parent for parent in known.get(number, ()) if parent not in path]
        return set().union(*(tops(parent, (*path, parent)) for parent in above)) if above else {number}

    def outline(kin: Kin) -> Any:
        inside = frozenset(outline(child) for child in kin.children)
        assert len(inside) == len(kin.children)
        return numbers[kin.hash], *kin.names, kin.card is not None, kin.relation, inside

    found = [outline(kin) for kin in store.family(f"m{asked}")]
    assert len(found) == len(set(found))
    assert set(found) == {below(top, None, (top,)) for top in tops(asked, (asked,))}


def test_a_damaged_object_does_not_hide_the_others(store: Store, make: Any) -> None:
    store.add(make(seed=0), "bad")
    store.path("bad").write_bytes(b"")
    store.add(make(seed=1), "good")
    assert {names: card is None for names, _, card in store.cards()} == {("bad",): True, ("good",): False}
    with pytest.raises(ModelError):
        store.get("bad")


def test_what_a_crash_leaves_is_ignored_and_cleared(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(make(seed=0), "a")
    names = ("objects/.beef.safetensors.01234567.tmp", "names/.b.json.01234567.tmp")
    leftovers = [store.root / name for name in names]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    assert list(store.names()) == ["a"]
    assert len(list(store.cards())) == 1

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_text", crash)  # the object is written, its name is not
        with pytest.raises(KeyboardInterrupt):
            store.add(make(seed=1), "b")
    assert list(store.names()) == ["a"]
    assert not any(leftover.exists() for leftover in leftovers)
    assert store.get(make(seed=1).hash).hash == make(seed=1).hash
    assert store.get(store.add(make(seed=1), "b")).hash == make(seed=1).hash


def test_what_is_damaged_or_in_the_way_is_told(store: Store, make: Any, tmp_path: Path) -> None:
    store.add(make(), "m")
    (store.root / "names" / "m.json").write_text(json.dumps({"other": 1}))
    with pytest.raises(ModelError, match=r"m\.json"):
        store.get("m")
    store.add(make(), "m")
    store.path("m").unlink()
    store.path("m").mkdir()
    with pytest.raises(OutputError, match=store.hash("m")):
        store.add(make(), "m")
    store.path("m").rmdir()
    store.remove("m")
    assert store.names() == {}
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        Store(tmp_path / "file" / "models").add(make(), "m")


ADDING = """
import os
import sys
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build
from advkit.models.store import Store
import torch

card = ModelCard(role="classifier", architecture="mlp", config={"hidden": []}, shape=(1, 8, 8), classes=10)
other = os.fork()  # so that PyTorch is imported only once
who, store = "bb" if other else "a", Store(sys.argv[1])
for number in range(6):
    network = build("mlp", shape=card.shape, classes=10, config=card.config)
    torch.nn.init.constant_(network.layers[1].weight, number + len(who) / 10)
    torch.nn.init.zeros_(network.layers[1].bias)
    store.add(Model(network, card), f"{who}-{number}")
    store.add(Model(network, card), "latest")
    if number % 3 == 2:
        store.remove(f"{who}-{number}")
if other:
    assert os.waitpid(other, 0)[1] == 0
"""


def test_two_processes_may_add_and_remove_at_once(store: Store) -> None:
    subprocess.run([sys.executable, "-c", ADDING, str(store.root)], check=True, timeout=120)
    names = store.names()
    kept = {f"{who}-{number}" for who in ("a", "bb") for number in range(6) if number % 3 != 2}
    assert names.keys() == kept | {"latest"}
    for name, digest in names.items():
        assert store.get(name).hash == digest
    assert list(store.root.glob("*/.*")) == []
