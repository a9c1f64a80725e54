"""``advkit finetune`` from its configuration to what it leaves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from advkit.commands import finetune as command
from advkit.commands.finetune import run as finetune
from advkit.core import files
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import UserError
from advkit.data.load import load_data
from advkit.models.load import load_model
from advkit.models.store import Store
from advkit.reuse import tested
from advkit.reuse.classifier import from_scratch, layer_rates, pretrained
from advkit.reuse.settings import FineTuning


@pytest.fixture(autouse=True)
def few_attacks(monkeypatch):
    monkeypatch.setattr(tested, "ATTACKED", 40)


def plan(**values):
    return validate(FineTuning, {"model": "critic", "labels": 100, "epochs": 2, **values}, "test")


def trunk_of(classifier):
    return classifier.network.trunk.state_dict()


def features_of(discriminator):
    state = discriminator.network.state_dict()
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def test_the_trunk_is_the_discriminator(discriminator):
    data = load_data("digits", "train", limit=20)
    model, fresh = pretrained(discriminator, data, 0), from_scratch(discriminator, data, 0)
    x, _ = data.batch(torch.arange(20))
    network = discriminator.network.eval()
    model.eval()
    assert torch.equal(model.network.trunk.features(x), network.features(x))
    assert model(x).shape == (20, 10)
    assert model.card.architecture == "trunk-classifier" and model.card.labels == data.class_names
    assert torch.equal(model.network.head.weight, fresh.network.head.weight)
    assert not torch.equal(model.network.trunk.features(x), fresh.eval().network.trunk.features(x))


def test_all_of_it_and_what_it_leaves(discriminator):
    outcome = finetune(plan(), Context(out=Path("clf.pt")))
    classifier = load_model("clf.pt", role="classifier")
    (parent,) = classifier.card.lineage
    assert (parent.relation, parent.hash, parent.name) == ("fine-tuned-from", discriminator.hash, "critic")
    assert classifier.hash == Store().hash("digits-conv-gan-classifier") == load_model(outcome.files[-1]).hash
    assert classifier.card.data.n == 100
    moved = trunk_of(classifier)
    assert any(not torch.equal(value, moved[name]) for name, value in features_of(discriminator).items())
    result = files.read_json(outcome.files[-1] / "result.json")
    assert result == outcome.result
    assert result["test"]["n"] == 359
    right = result["test"]["correct"]["fine-tuned"]
    assert classifier.card.metrics["test_accuracy"] == pytest.approx(right / 359)
    assert outcome.next[0] == "advkit attack --model clf.pt"
    assert [row[0] for row in outcome.tables[0].rows] == ["fine-tuned"]


def test_the_probe_leaves_the_trunk_untouched(discriminator):
    finetune(plan(mode="probe"), Context(out=Path("clf.pt")))
    probed = trunk_of(load_model("clf.pt"))
    before = features_of(discriminator)
    assert probed.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in probed.items())
    fresh = pretrained(discriminator, load_data("digits", "train"), 0).network.head
    assert not torch.equal(load_model("clf.pt").network.head.weight, fresh.weight)


def test_the_labels_are_balanced_fixed_and_published(discriminator):
    train = load_data("digits", "train")
    first = finetune(plan(), Context(out=Path("a"))).result["label_ids"]
    other = finetune(plan(seed=3), Context(out=Path("b"))).result["label_ids"]
    more = finetune(plan(labels=200), Context(out=Path("c"))).result["label_ids"]
    assert first == other and set(first) < set(more)
    assert train.labels[torch.tensor(first)].bincount().tolist() == [10] * 10
    assert finetune(plan(labels="all", batch_size=512), Context(out=Path("d"))).result["label_ids"] is None


def test_test_labels_are_not_touched_before_the_end(discriminator, monkeypatch):
    first = finetune(plan(), Context()).result
    honest = load_data

    def shuffled(name, split="test", **rest):
        data = honest(name, split, **rest)
        return replace(data, labels=data.labels.roll(1)) if split == "test" else data

    monkeypatch.setattr("advkit.data.load.load_data", shuffled)
    other = finetune(plan(), Context()).result
    assert first["model"]["hash"] == other["model"]["hash"]
    assert first["test"]["correct"] != other["test"]["correct"]


def test_an_interrupted_command_goes_on(discriminator, stopping):
    with pytest.raises(KeyboardInterrupt):
        finetune(plan(epochs=4), Context(out=Path("cut"), progress=stopping))
    resumed = finetune(plan(epochs=4), Context(out=Path("cut"), resume=True))
    whole = finetune(plan(epochs=4), Context(out=Path("whole")))
    assert resumed.result["model"]["hash"] == whole.result["model"]["hash"]


def test_a_dry_run_leaves_nothing(discriminator, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    outcome = finetune(plan(scratch=True), Context(dry_run=True))
    assert outcome.result["updates"] == 2 * 4 and sorted(tmp_path.rglob("*")) == before


def test_faults_are_found_before_the_training(discriminator, built, monkeypatch):
    monkeypatch.setattr(command, "fit", None)
    Store().add(built("mlp-gan-generator", "generator"), "generator")
    Store().add(built("conv-gan-discriminator", "discriminator", shape=(1, 28, 28)), "large")
    Path("clf.pt").write_text("mine", encoding="utf-8")
    for values, code in (
        ({"labels": 7}, "invalid-data"),
        ({"labels": 5000}, "invalid-data"),
        ({"labels": "some"}, "invalid-config"),
        ({"mode": "prob"}, "invalid-config"),
        ({"model": "critc"}, "model-not-found"),
        ({"model": "generator"}, "invalid-model"),
        ({"model": "large"}, "invalid-data"),
        ({}, "already-exists"),
    ):
        with pytest.raises(UserError) as fault:
            finetune(plan(**values), Context(out=None if values else Path("clf.pt")))
        assert fault.value.code == code
    assert Path("clf.pt").read_text(encoding="utf-8") == "mine"


def test_a_vae_lends_its_encoder(vae):
    data = load_data("digits", "train", limit=20)
    model = pretrained(vae, data, 0)
    x, _ = data.batch(torch.arange(20))
    assert torch.equal(model.network.features(x), torch.cat(vae.network.encode(x), 1))
    assert not any("decoder" in name for name in model.state_dict())
    outcome = finetune(plan(model="toy", scratch=True), Context(out=Path("clf.pt")))
    classifier = load_model("clf.pt", role="classifier")
    assert classifier.card.architecture == "encoder-classifier"
    (parent,) = classifier.card.lineage
    assert (parent.hash, parent.name) == (vae.hash, "toy")
    assert [row[0] for row in outcome.tables[0].rows] == ["fine-tuned", "from scratch"]


def test_the_rate_falls_from_layer_to_layer(discriminator):
    model = pretrained(discriminator, load_data("digits", "train", limit=20), 0)
    rates = layer_rates(model, "network.trunk", 0.5, 0.1)
    assert rates == {"network.trunk.trunk.3.": 0.5, "network.trunk.trunk.0.": 0.05}
    names = [name for name, _ in model.named_parameters() if not name.startswith("network.head")]
    assert all(any(name.startswith(start) for start in rates) for name in names)


def test_normalisation_belongs_to_the_layer_before_it_and_a_parametrised_layer_is_one():
    spectral = torch.nn.utils.parametrizations.spectral_norm
    layers = spectral(torch.nn.Linear(4, 4)), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    inner = torch.nn.Sequential(*layers)
    rates = layer_rates(torch.nn.ModuleDict({"part": inner}), "part", 1.0, 0.5)
    assert rates == {"part.0.": 0.5, "part.1.": 0.5, "part.2.": 1.0}


def test_the_robust_error_is_told_beside_the_clean_one(discriminator):
    harmless = finetune(plan(epochs=60, norm="linf", eps=1e-6), Context(out=Path("a"))).result["test"]
    fatal = finetune(plan(epochs=60, norm="linf", eps=1.0), Context(out=Path("b"))).result["test"]
    assert fatal["attack"]["eps"] == 1.0 and fatal["errors"]["fine-tuned"]["attacked"] == 40
    assert harmless["errors"]["fine-tuned"]["clean"] == fatal["errors"]["fine-tuned"]["clean"]
    assert harmless["errors"]["fine-tuned"]["robust"] < 20
    assert fatal["errors"]["fine-tuned"]["robust"] == 40
    assert harmless["correct"]["fine-tuned"] == 359 - harmless["errors"]["fine-tuned"]["clean"]


def test_without_a_customary_threat_nothing_is_attacked(discriminator, monkeypatch):
    honest = load_data

    def unknown(*what, **how):
        return replace(honest(*what, **how), threat=None)

    monkeypatch.setattr("advkit.data.load.load_data", unknown)
    outcome = finetune(plan(), Context())
    assert outcome.result["test"]["attack"] is None
    assert outcome.result["test"]["errors"]["fine-tuned"]["robust"] is None
    assert len(outcome.tables[0].columns) == 4


def test_extra_images_join_the_labelled_ones(discriminator):
    train = load_data("digits", "train", limit=30)
    np.savez("extra.npz", x=train.images.numpy(), y=train.labels.numpy())
    plain = finetune(plan(), Context(out=Path("a"))).result
    mixed = finetune(plan(extra_data="npz:extra.npz", extra_fraction=0.5), Context(out=Path("b"))).result
    assert plain["updates"] == mixed["updates"] and plain["model"]["hash"] != mixed["model"]["hash"]
    inputs = json.loads(Path("b/resolved.json").read_text(encoding="utf-8"))["inputs"]
    assert inputs["extra images"] == load_data("npz:extra.npz", "train").fingerprint
