from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from advkit import files, load_model
from advkit.errors import ConfigError, ModelError, OutputError
from advkit.models.card import Parent
from advkit.models.store import Kin, Store


def test_a_model_comes_back_by_name_and_by_the_beginning_of_its_hash(store: Store, make: Any) -> None:
    model = make()
    digest = store.add(model, "one")
    assert digest == model.hash
    for name in ("one", digest, digest[:4]):
        assert store.get(name).hash == digest
        assert store.path(name) == store.root / "objects" / f"{digest}.safetensors"


def test_the_default_store_is_under_advkit_home(make: Any, tmp_path: Path) -> None:
    Store().add(make(), "one")
    assert (tmp_path / "home" / "models" / "names" / "one.json").exists()
    assert load_model("one").hash == make().hash


def test_a_name_moves_and_the_earlier_model_stays_reachable(store: Store, make: Any) -> None:
    first, second = store.add(make(seed=0), "m"), store.add(make(seed=1), "m")
    assert store.hash("m") == second
    assert store.get(first[:12]).hash == first
    assert [(names, digest) for names, digest, _ in store.cards()] == [(("m",), second), ((), first)]


def test_the_same_weights_are_one_object_with_the_newer_card(store: Store, make: Any) -> None:
    digest = store.add(make(notes="old"), "a")
    assert store.add(make(notes="new"), "b") == digest
    [(names, _, card)] = store.cards()
    assert names == ("a", "b")
    assert card is not None
    assert card.notes == "new"


def test_removing(store: Store, make: Any) -> None:
    digest = store.add(make(), "a")
    store.add(make(), "b")
    store.remove("a")
    assert store.get("b").hash == digest
    with pytest.raises(ConfigError, match="is called b; remove it by name"):
        store.remove(digest)
    store.remove("b")
    assert list(store.cards()) == []
    assert list((store.root / "objects").iterdir()) == []
    store.add(make(seed=1), "c")
    unnamed = store.add(make(seed=0), "c"), store.add(make(seed=1), "c")
    store.remove(unnamed[0])
    assert store.names() == {"c": unnamed[1]}


def test_unknown_names_name_the_nearest(store: Store, make: Any) -> None:
    store.add(make(), "digits-clf")
    for ask in (store.get, store.remove, store.family, store.path):
        with pytest.raises(ModelError, match="did you mean 'digits-clf'"):
            ask("digits-cfl")
    with pytest.raises(ModelError, match="no model called 'ffff'"):
        store.get("ffff")


def test_the_beginning_of_several_hashes_is_refused(store: Store, make: Any) -> None:
    digest = store.add(make(), "m")
    twin = digest[:8] + "0" * 56
    store.path("m").with_name(f"{twin}.safetensors").write_bytes(store.path("m").read_bytes())
    with pytest.raises(ConfigError, match=f"{digest}.*write more"):
        store.get(digest[:8])
    assert store.get(digest[:60]).hash == digest


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "a\\b", ".hidden", "-x", "a b", "a\n", "ü", "x" * 101, "m.pt"]
)
def test_names_that_could_be_paths_are_refused(name: str, store: Store, make: Any) -> None:
    with pytest.raises(ConfigError, match="name"):
        store.add(make(), name)
    assert not store.root.exists()


def test_export_and_import(store: Store, make: Any, tmp_path: Path) -> None:
    digest = store.add(make(notes="kept"), "m")
    path = store.export("m", tmp_path / "m.pt")
    with pytest.raises(OutputError, match="exists already"):
        store.export("m", path)
    store.export("m", path, overwrite=True)
    other = Store(tmp_path / "other")
    assert other.import_(path, "again") == digest
    assert other.get("again").card.notes == "kept"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        other.import_(path, "broken")
    assert other.names() == {"again": digest}


def test_importing_weights_without_a_card(store: Store, make: Any, tmp_path: Path) -> None:
    torch.save(make("lenet").network.state_dict(), tmp_path / "foreign.pth")
    store.import_(tmp_path / "foreign.pth", "theirs")
    store.import_(tmp_path / "foreign.pth", "named", arch="lenet")
    assert store.get("theirs").card.architecture == store.get("named").card.architecture == "lenet"
    with pytest.raises(ModelError, match="does not fit architecture 'mlp'"):
        store.import_(tmp_path / "foreign.pth", "wrong", arch="mlp")


def outline(kin: Kin) -> Any:
    return (kin.names, kin.relation, [outline(child) for child in kin.children])


def test_the_family_is_a_tree_from_the_oldest_ancestor(store: Store, make: Any) -> None:
    def child(seed: int, name: str, relation: Any, parent: str) -> str:
        lineage = (Parent(relation=relation, hash=parent, name="its name then"),)
        return store.add(make(seed=seed, lineage=lineage), name)

    generator = store.add(make("conv-gan-generator"), "gan")
    child(1, "ema", "ema-of", generator)
    critic = child(2, "critic", "discriminator-of", generator)
    clf = child(3, "clf", "fine-tuned-from", critic)
    child(4, "hard", "hardened-from", clf)
    store.add(make(seed=5), "stranger")

    whole = (
        ("gan",),
        None,
        [
            (("ema",), "ema-of", []),
            (
                ("critic",),
                "discriminator-of",
                [(("clf",), "fine-tuned-from", [(("hard",), "hardened-from", [])])],
            ),
        ],
    )
    for name in ("gan", "ema", "hard"):
        [tree] = store.family(name)
        names, relation, children = outline(tree)
        assert (names, relation, sorted(children)) == (whole[0], whole[1], sorted(whole[2]))
    [alone] = store.family("stranger")
    assert outline(alone) == (("stranger",), None, [])

    store.remove("critic")
    [tree] = store.family("hard")
    assert tree.names == ("its name then",)
    assert tree.card is None
    assert [kin.names for kin in tree.children] == [("clf",)]


def test_two_parents_make_two_trees_and_a_circle_ends(store: Store, make: Any) -> None:
    a, b = store.add(make(seed=0), "a"), store.add(make(seed=1), "b")
    parents = tuple(Parent(relation="distilled-from", hash=digest) for digest in (a, b))
    store.add(make(seed=2, lineage=parents), "c")
    assert [tree.names for tree in store.family("c")] == [("a",), ("b",)]
    store.add(make(seed=3, lineage=(Parent(relation="ema-of", hash=make(seed=3).hash),)), "own-parent")
    [tree] = store.family("own-parent")
    assert tree.children == ()


def test_a_damaged_object_does_not_hide_the_others(store: Store, make: Any) -> None:
    store.add(make(seed=0), "bad")
    store.path("bad").write_bytes(b"")
    store.add(make(seed=1), "good")
    assert {names: card is None for names, _, card in store.cards()} == {("bad",): True, ("good",): False}
    with pytest.raises(ModelError, match="empty"):
        store.get("bad")


def test_what_a_crash_leaves_is_ignored_and_cleared(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(make(seed=0), "a")
    leftovers = [
        store.root / "objects" / ".beef.safetensors.01234567.tmp",
        store.root / "names" / ".b.json.01234567.tmp",
    ]
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


def test_a_damaged_name_says_what_to_do(store: Store, make: Any) -> None:
    store.add(make(), "m")
    (store.root / "names" / "m.json").write_text(json.dumps({"other": 1}))
    with pytest.raises(ModelError, match="delete it and add the model again"):
        store.get("m")


def test_a_place_that_cannot_be_written(make: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="set ADVKIT_HOME"):
        Store(tmp_path / "file" / "models").add(make(), "m")


ADDING = """
import sys
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build
from advkit.models.store import Store
import torch

who, root = sys.argv[1:]
card = ModelCard(role="classifier", architecture="mlp", config={"hidden": []}, shape=(1, 8, 8), classes=10)
models = []
for seed in range(12):
    network = build("mlp", shape=card.shape, classes=10, config=card.config)
    torch.nn.init.constant_(network.layers[1].weight, seed if who == "both" else seed + len(who) / 10)
    torch.nn.init.zeros_(network.layers[1].bias)
    models.append(Model(network, card))
print("ready", flush=True)
sys.stdin.readline()
store = Store(root)
for number, model in enumerate(models):
    store.add(model, f"{who}-{number}")
    store.add(model, "latest")
    if number % 3 == 2:
        store.remove(f"{who}-{number}")
"""


def test_two_processes_may_add_and_remove_at_once(store: Store) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", ADDING, who, str(store.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in ("a", "bb")
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=120)
        assert worker.returncode == 0
    names = store.names()
    kept = {f"{who}-{number}" for who in ("a", "bb") for number in range(12) if number % 3 != 2}
    assert names.keys() == kept | {"latest"}
    for name, digest in names.items():
        assert store.get(name).hash == digest
    assert list(store.root.glob("*/.*")) == []
