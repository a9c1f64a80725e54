from __future__ import annotations

import json

import pytest
import torch

from advkit.attacks.ensemble import ENSEMBLES
from advkit.cli.ls import KINDS
from advkit.core import rng
from advkit.core.threat import Threat
from advkit.models.card import DataFacts, ModelCard, Parent
from advkit.models.load import load_model
from advkit.models.model import Model
from advkit.models.network import build
from advkit.models.shipped import SHIPPED
from advkit.models.store import Store


def test_kinds(advkit):
    answer = advkit("ls", "--json", "-")
    assert answer.exit_code == 0, answer.stderr
    counts = json.loads(answer.stdout)
    assert list(counts) == list(KINDS)
    assert counts["commands"] >= 12
    assert all(counts.values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_listed(advkit, kind):
    answer = advkit("ls", kind, "--json", "-")
    assert answer.exit_code == 0, answer.stderr
    rows = json.loads(answer.stdout)[kind]
    assert rows and all(row["name"] and row["summary"] for row in rows)
    names = KINDS[kind].names
    assert names is None or sorted(names()) == sorted(row["name"] for row in rows)
    drawn = advkit("ls", kind).stdout
    assert all(row["name"] in drawn for row in rows)


def test_words_narrow_a_listing(advkit):
    found = json.loads(
        advkit("ls", "architectures", "generator", "uniform", "dropout", "--json", "-").stdout
    )["architectures"]
    assert [row["name"] for row in found] == ["mlp-gan-generator"]


def test_a_single_thing_is_shown_with_its_parameters(advkit):
    lines = advkit("ls", "architectures", "conv-gan-generator").stdout.splitlines()
    assert any(line.split()[:2] == ["latent_dim", "100"] for line in lines)
    assert any(line.split()[:2] == ["channels", "After"] for line in lines)


@pytest.mark.parametrize("name", [entry.name for entry in ENSEMBLES])
def test_an_ensemble_is_shown_with_the_stages_that_a_report_names(advkit, name):
    rows = json.loads(advkit("ls", "ensembles", name, "--json", "-").stdout)["stages"]
    kind = ENSEMBLES.get(name)
    planned = kind(kind.Config()).stages(Threat("linf", 0.1), 10)
    assert [(row["name"], row["attack"]) for row in rows] == [(one.name, one.attack) for one in planned]
    drawn = "".join(advkit("ls", "ensembles", name).stdout.split())
    assert all(one.name.split()[0] in drawn for one in planned)
    assert "stages" not in json.loads(advkit("ls", "ensembles", "--json", "-").stdout)


def _model(role: str, seed: int, *parents: Parent) -> Model:
    arch = f"mlp-gan-{role}"
    with rng.scope("cpu", seed, "test"):
        network = build(arch, shape=(1, 8, 8))
    facts = DataFacts(name="digits", split="train", fingerprint="0", n=10)
    card = ModelCard(role=role, architecture=arch, shape=(1, 8, 8), lineage=parents, data=facts)
    return Model(network, card)


@pytest.fixture
def family(advkit) -> Store:
    """A generator, its average and its discriminator, in the store that ``advkit`` sees."""
    store = Store()
    parent = store.add(_model("generator", 0), "gan-generator")
    for name, role, relation in (
        ("gan-ema", "generator", "ema-of"),
        ("gan-d", "discriminator", "discriminator-of"),
    ):
        store.add(_model(role, len(name), Parent(relation=relation, hash=parent)), name)
    return store


def test_an_empty_store_says_what_to_do(advkit):
    answer = advkit("models", "ls")
    assert answer.exit_code == 0
    assert "The store is empty." in answer.stdout and "advkit gan-train" in answer.stdout


def test_models_are_listed_and_shown(advkit, family):
    rows = json.loads(advkit("models", "ls", "--json", "-").stdout)["models"]
    assert sorted(row["names"][0] for row in rows) == ["gan-d", "gan-ema", "gan-generator"]
    rows = json.loads(advkit("models", "ls", "discriminator", "--json", "-").stdout)["models"]
    assert [(row["hash"], row["data"]) for row in rows] == [(family.hash("gan-d"), "digits")]
    answer = advkit("models", "show", "gan-d")
    assert "mlp-gan-discriminator" in answer.stdout
    assert answer.stdout.splitlines()[-1] == str(family.path("gan-d"))
    assert json.loads(advkit("models", "show", "gan-d", "--json", "-").stdout)["schema"] == "advkit/model"


def test_shipped_models_are_listed_shown_and_exported(advkit, family):
    rows = json.loads(advkit("models", "ls", "--json", "-").stdout)["shipped"]
    assert [row["name"] for row in rows] == [f"advkit:{name}" for name in SHIPPED]
    (row,) = json.loads(advkit("models", "ls", "digits-robust", "--json", "-").stdout)["shipped"]
    assert {one["name"] for one in row["accuracies"]} == {"clean", "robust", "certified"}
    drawn = advkit("models", "ls", "strided-cnn", "robust").stdout
    assert "advkit:digits-robust" in drawn and "linf" in drawn and "advkit:digits-gan" not in drawn
    card = json.loads(advkit("models", "show", "advkit:digits-robust", "--json", "-").stdout)
    assert [one["correct"] for one in card["accuracies"]] == [one["correct"] for one in row["accuracies"]]
    assert str(card["accuracies"][0]["correct"]) in advkit("models", "show", "advkit:digits-robust").stdout
    assert advkit("models", "export", "advkit:digits-robust", "mine.pt").exit_code == 0
    assert load_model("mine.pt").hash == load_model("advkit:digits-robust").hash
    for command in ("show", "export"):
        refused = advkit("models", command, "advkit:nothing", *["x.pt"][: command == "export"])
        assert refused.exit_code == 2 and "advkit:digits-robust" in refused.stderr


def test_lineage_is_a_tree(advkit, family):
    lines = advkit("models", "lineage", "gan-ema").stdout.splitlines()
    assert lines[1] == "gan-generator (generator mlp-gan-generator)"
    assert sorted(lines[2:4], key=lambda line: line[3:]) == [
        line
        for line in sorted(lines[2:4], key=lambda line: line[3:])
        if line.startswith(("├─ gan-", "└─ gan-")) and "of the above" in line
    ]
    assert sum("<- this one" in line for line in lines) == 1


def test_export_import_rm(advkit, family, tmp_path):
    exported = advkit("models", "export", "gan-d", "d.pt")
    assert exported.stdout == "d.pt\n"
    assert advkit("models", "export", "gan-d", "d.pt").exit_code == 2
    imported = advkit("models", "import", "d.pt", "again")
    assert imported.exit_code == 0 and imported.stdout.startswith(f"again {family.hash('gan-d')[:12]}")
    refused = advkit("models", "rm", "again", "gan-dd")
    assert refused.exit_code == 2 and "'gan-d'" in refused.stderr
    assert "again" in family.names()
    assert advkit("models", "rm", "again", "again").exit_code == 2
    assert advkit("models", "rm", "again", "gan-d").exit_code == 0
    assert set(family.names()) == {"gan-ema", "gan-generator"}
    (tmp_path / "bare.pt").write_bytes(b"")
    assert advkit("models", "show", "bare.pt").exit_code == 2


def test_a_file_without_a_card_is_said(advkit, tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "bare.pt")
    answer = advkit("models", "show", "bare.pt")
    assert answer.exit_code == 2
    assert "has no card" in answer.stderr


def test_data_ls(advkit, tmp_path):
    rows = json.loads(advkit("data", "ls", "--data-dir", str(tmp_path), "--json", "-").stdout)["data"]
    where = {row["name"]: row["where"] for row in rows}
    assert where["digits"] == "bundled"
    assert where["mnist"] == "missing: advkit data get mnist"
    assert "missing: advkit data get mnist" in advkit("data", "ls", "--data-dir", str(tmp_path)).stdout


def test_data_get_of_what_is_here(advkit, tmp_path):
    answer = advkit("data", "get", "digits", "--data-dir", str(tmp_path))
    assert answer.exit_code == 0
    assert "nothing to download" in answer.stderr
    assert answer.stdout == f"{tmp_path}\n"
