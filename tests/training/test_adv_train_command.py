"""``advkit adv-train`` from its configuration to what it leaves."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from advkit.commands import adv_train as command
from advkit.commands.adv_train import run as adv_train
from advkit.core import files
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError, OutputError, UserError
from advkit.core.progress import Progress
from advkit.core.stats import accuracy
from advkit.data.load import load_data
from advkit.data.subjects import Subject
from advkit.models.load import load_model
from advkit.models.network import build
from advkit.models.store import Store
from advkit.training import trainer
from advkit.training.settings import AdversarialTraining

DROPOUT = {"trunk": "conv-gan-discriminator", "trunk_config": {"channels": [4, 4]}}


def plan(**values):
    quick = {"epochs": 1, "batch_size": 256, "checks": 1, "holdout": 0.05, "parameters": {"steps": 1}}
    start = {} if "model" in values else {"arch": "mlp", "architecture": {"hidden": (16,)}}
    return validate(AdversarialTraining, {**quick, **start, **values}, "test")


class Heard(Progress):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


@pytest.fixture(autouse=True)
def short_attack(monkeypatch):
    monkeypatch.setattr(command, "ATTACKER", {"steps": 2})
    monkeypatch.setattr(command, "TESTED", 60)


def refuse_to_train(*args, **kwargs):
    raise AssertionError("training began")


@pytest.fixture
def untrainable(monkeypatch):
    """Faults must be found before training begins."""
    monkeypatch.setattr(command, "fit", refuse_to_train)


def test_from_scratch_to_a_file(tmp_path):
    outcome = adv_train(plan(), Context(out=Path("hard.pt")))
    hardened = load_model("hard.pt")
    card = hardened.card
    assert card.role == "classifier" and card.lineage == ()
    assert (card.threat.norm, card.threat.eps) == ("linf", 0.15)
    assert card.data.name == "digits" and card.data.n == 1438 and card.labels == tuple("0123456789")
    assert card.metrics.keys() == {"held_out_clean_accuracy", "held_out_robust_accuracy"}
    n, said = outcome.result["held_out"], " ".join(outcome.sentences)
    assert all(accuracy(round(value * n), n) in said for value in card.metrics.values())
    assert card.training["command"] == "adv-train" and card.training["eps"] == 0.15
    folder = outcome.files[-1]
    assert folder.parts[0] == "runs" and outcome.files[0] == Path("hard.pt")
    assert load_model(folder).hash == hardened.hash == Store().hash("digits-mlp-pgd")
    assert ElementTree.parse(outcome.pictures[0].path).getroot().tag.endswith("svg")
    assert [row[0] for row in outcome.tables[0].rows] == ["after"]
    assert outcome.next[0] == "advkit attack --model hard.pt"
    assert files.read_json(folder / "result.json") == outcome.result


def test_a_set_that_is_not_divided_has_no_test_images(digits):
    np.savez("one.npz", x=digits.images[:90].numpy(), y=digits.labels[:90].numpy())
    codes = []
    for data in ("npz:one.npz", "digits"):
        outcome = adv_train(
            plan(data=data, objective="standard", parameters={}, batch_size=16),
            Context(out=Path("clf.pt"), overwrite=True),
        )
        found = outcome.stored.test.data.notes
        assert all(str(note) in outcome.notes for note in found)
        seen = Subject.of("clf.pt", data, 20).images.notes  # those that it was trained on, too
        codes.append([{note.code for note in notes} for notes in (found, seen)])
    assert codes == [[{"no-test-split"}, {"trained-on"}], [set(), set()]]


def test_hardening_names_its_parent_and_compares_before_and_after():
    adv_train(plan(objective="standard", parameters={}, epochs=4, name="ordinary"), Context(out=Path("run")))
    outcome = adv_train(plan(model="ordinary", eps="1/10"), Context(out=Path("hard.safetensors")))
    hardened, ordinary = load_model("hard.safetensors"), load_model("ordinary")
    (parent,) = hardened.card.lineage
    assert (parent.relation, parent.hash, parent.name) == ("hardened-from", ordinary.hash, "ordinary")
    assert hardened.card.threat.eps == 0.1 and hardened.hash != ordinary.hash
    assert [row[0] for row in outcome.tables[0].rows] == ["before", "after"]
    assert outcome.result["test"]["before"]["n"] == outcome.result["test"]["after"]["n"] == 60


def test_a_finished_run_shows_its_result_again_and_speaks_for_no_other_model(monkeypatch):
    adv_train(plan(name="first"), Context())
    begun = Context(out=Path("run"))
    finished = adv_train(plan(model="first"), begun)
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", refuse_to_train)
        assert adv_train(plan(model="first"), begun) == finished
    adv_train(plan(name="first", seed=1), Context())
    with pytest.raises(ConfigError) as fault:
        adv_train(plan(model="first"), begun)
    assert fault.value.code == "run-differs"


def test_what_is_trained_on_noise_is_to_be_smoothed():
    outcome = adv_train(plan(objective="noise", parameters={"sigma": 0.1}), Context(out=Path("noisy.pt")))
    metrics = load_model("noisy.pt").card.metrics
    assert metrics.keys() == {"held_out_clean_accuracy", "held_out_noisy_accuracy"}
    assert outcome.next[0] == "advkit smooth --model noisy.pt --n 50"


def test_a_hardened_model_is_hardened_further_against_the_same_threat():
    adv_train(plan(eps=0.05, name="first"), Context())
    heard = Heard()
    outcome = adv_train(plan(model="first"), Context(progress=heard))
    assert outcome.result["config"]["eps"] == 0.05
    assert any("trained against" in line for line in heard.said)


def test_a_model_keeps_its_classes_on_data_that_number_them_otherwise(monkeypatch):
    """All of them backwards, and the first three alone."""

    def trained(train, test):
        monkeypatch.setattr(command, "load_splits", lambda *_: (train, test))
        return adv_train(plan(model="advkit:digits-standard", rate=1e-6), Context()).result

    splits = [load_data("digits", split) for split in ("train", "test")]
    other = [replace(part, labels=9 - part.labels, class_names=part.class_names[::-1]) for part in splits]
    few = [part.take((part.labels < 3).nonzero()[:, 0]) for part in splits]
    few = [replace(part, labels=2 - part.labels, class_names=part.class_names[2::-1]) for part in few]
    for train, test in (other, few):
        result = trained(train, test)
        before = result["test"]["before"]
        assert before["clean"] >= 0.9 * before["n"]
        assert result["card"]["labels"] == [str(digit) for digit in range(10)]


def test_a_dry_run_counts_the_passes_and_leaves_nothing(tmp_path):
    config = plan(epochs=3, parameters={"steps": 4, "clean_weight": 0.5}, holdout=0)
    outcome = adv_train(config, Context(dry_run=True))
    assert outcome.result["updates"] == 3 * 6
    assert outcome.result["forwards"] == outcome.result["backwards"] == 3 * 6 * 256 * (4 + 2)
    assert list(tmp_path.iterdir()) == []


def test_several_threat_models_are_withstood_at_once():
    config = plan(also=["l2:0.8"], precision="auto")
    planned = adv_train(config, Context(dry_run=True))
    assert "linf eps 0.15, l2 eps 0.8" in planned.sentences[0]
    assert planned.result["forwards"] == 6 * 256 * (2 * 1 + 2 + 1)
    outcome = adv_train(config, Context())
    assert outcome.title == "trained against linf eps 0.15, l2 eps 0.8"
    assert outcome.result["config"]["precision"] in ("float32", "bfloat16")
    card = load_model(outcome.files[-1]).card
    assert (card.threat.norm, card.training["also"]) == ("linf", ["l2:0.8"])


def test_what_went_wrong_is_in_the_outcome(monkeypatch):
    monkeypatch.setattr(
        trainer, "warnings", lambda rows, classes: {"kind": "it went wrong"} if len(rows) == 2 else {}
    )
    outcome = adv_train(plan(checks=2), Context())
    assert outcome.result["warnings"] == ["update 6: it went wrong"]
    assert "update 6: it went wrong" in outcome.sentences


KILLED = """
import os, signal, sys
from pathlib import Path
from advkit.core.context import Context
from advkit.commands.adv_train import run as adv_train
from advkit.training.settings import AdversarialTraining
from advkit.training.trainer import Trainer

update = Trainer.update
def dying(trainer):
    if trainer.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(trainer)
Trainer.update = dying
adv_train(AdversarialTraining.model_validate_json(sys.argv[1]), Context(out=Path("killed.pt")))
"""


def test_a_killed_command_is_resumed_bit_for_bit():
    config = plan(checks=4, arch="trunk-classifier", architecture=DROPOUT, shift=1)
    words = [sys.executable, "-c", KILLED, config.model_dump_json(exclude_unset=True)]
    died = subprocess.run(words, check=False)
    assert died.returncode == -9
    folder = Path("runs/00001-adv-train-digits")
    assert torch.load(folder / "state.pt", weights_only=True)["step"] == 4
    outcome = adv_train(config, Context(out=Path("killed.pt"), resume=True))
    again = adv_train(config, Context(out=Path("run")))
    assert outcome.files[-1] == folder
    assert outcome.result["model"]["hash"] == again.result["model"]["hash"]
    assert (folder / "metrics.jsonl").read_bytes() == Path("run/metrics.jsonl").read_bytes()


def test_a_foreign_model_keeps_what_was_said_of_its_pixels():
    torch.save(build("mlp", shape=(1, 8, 8), classes=10).state_dict(), "foreign.pt")
    said = {"pixel_range": (-1.0, 1.0), "mean": (0.1,), "std": (0.5,)}
    adv_train(plan(model="foreign.pt", arch="mlp", **said), Context(out=Path("hard.pt")))
    hardened = load_model("hard.pt")
    assert hardened.card.architecture == "mlp"
    assert hardened.card.preprocessing.model_dump(include=set(said)) == said


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"mean": [0.5]}, "invalid-config"),
        ({"model": "nowhere"}, "model-not-found"),
        ({"arch": "lenett"}, "unknown-name"),
        ({"arch": "conv-gan-generator", "architecture": {}}, "invalid-config"),
        ({"objective": "pdg"}, "unknown-name"),
        ({"parameters": {"step": 3}}, "invalid-config"),
        ({"eps": 8}, "invalid-config"),
        ({"norm": "l2"}, "invalid-config"),
        ({"norm": "l0", "eps": 3}, "invalid-config"),
        ({"data": "digitz"}, "unknown-name"),
        ({"name": "a/b"}, "invalid-config"),
        ({"holdout": 1}, "invalid-config"),
        ({"patience": 0}, "invalid-config"),
        *(
            ({"also": also}, "invalid-config")
            for also in (["l2"], ["l2:x"], ["l0:3"], ["linf:0.2"], ["linf:8"])
        ),
        ({"also": ["l2:1"], "objective": "free", "parameters": {}}, "invalid-config"),
        ({"union": "min"}, "invalid-config"),
        ({"norm": "l1", "eps": 4, "objective": "fgsm", "parameters": {}}, "invalid-config"),
        ({"parameters": {"attack": "square"}}, "invalid-config"),
        ({"precision": "float16"}, "invalid-config"),
        ({"model": "painter"}, "invalid-model"),
        ({"model": "large"}, "invalid-data"),
        ({"model": "seven"}, "invalid-model"),
        ({"model": "ten", "architecture": {"hidden": (3,)}}, "invalid-config"),
    ],
    ids=str,
)
def test_faults(values, code, untrainable, built):
    for name, model in (
        ("painter", built("mlp-gan-generator", "generator")),
        ("large", built("mlp", "classifier", 10, shape=(1, 28, 28))),
        ("seven", built("mlp", "classifier", 7)),
        ("ten", built("mlp", "classifier", 10)),
    ):
        if name == values.get("model"):
            Store().add(model, name)
    with pytest.raises(UserError) as fault:
        adv_train(plan(**values), Context(out=Path("hard.pt")))
    assert fault.value.code == code and not Path("hard.pt").exists()


def test_data_without_a_threat_model_need_one(untrainable, monkeypatch, digits):
    monkeypatch.setattr(command, "load_splits", lambda *_: (replace(digits, threat=None),) * 2)
    with pytest.raises(ConfigError):
        adv_train(plan(), Context())


def test_files_are_replaced_only_when_asked(monkeypatch):
    Path("hard.pt").write_text("mine", encoding="utf-8")
    Path("folder.pt").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "fit", refuse_to_train)
        for out, fault in (("hard.pt", OutputError), ("folder.pt", OutputError), ("hard.pth", ConfigError)):
            with pytest.raises(fault):
                adv_train(plan(), Context(out=Path(out)))
    assert Path("hard.pt").read_text(encoding="utf-8") == "mine"
    adv_train(plan(), Context(out=Path("hard.pt"), overwrite=True))
    assert load_model("hard.pt").card.role == "classifier"
