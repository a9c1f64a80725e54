"""``advkit semi-train``: the losses of the game, its resume, and what it leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from advkit.config import validate
from advkit.context import Context
from advkit.data.load import load_data
from advkit.errors import ConfigError, DataError, DivergedError, ModelError
from advkit.models.load import load_model
from advkit.models.network import build
from advkit.models.normalised import NormalisedLinear, standardising
from advkit.models.store import Store
from advkit.progress import Progress, Task
from advkit.reuse import semi_command, tested
from advkit.reuse.semi_command import semi_train
from advkit.reuse.semi_game import SemiGame, aligned, fake_loss, matching, real_loss, sure_loss
from advkit.reuse.semi_plan import SemiSupervised
from advkit.reuse.semi_train import train_semi

SMALL = {
    "epochs": 1,
    "batch_size": 50,
    "checkpoint_every": 10,
    "generator": {"latent_dim": 4, "hidden": [16, 16]},
    "discriminator": {"hidden": [24, 16]},
}


@pytest.fixture(autouse=True)
def few_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "ATTACKED", 20)
    monkeypatch.setattr("os.fsync", lambda file: None)


def plan(**values: Any) -> SemiSupervised:
    return validate(SemiSupervised, SMALL | values, "test")


def game(config: SemiSupervised, discriminator=None) -> SemiGame:
    train = load_data("digits", "train")
    labelled = train.take(train.balanced(config.labels))
    return SemiGame(config, labelled, train, discriminator, torch.device("cpu"))


def test_the_losses_are_those_of_a_class_more_whose_logit_is_0():
    logits = torch.tensor([[2.0, -1.0, 0.5], [-3.0, -4.0, -5.0]])
    generated = torch.cat([logits, torch.zeros(2, 1)], 1).softmax(1)[:, 3]
    lost, likely = real_loss(logits)
    assert torch.allclose(lost, -(1 - generated).log(), atol=1e-6)
    assert torch.allclose(likely, 1 - generated, atol=1e-6)
    assert torch.allclose(fake_loss(logits)[0], -generated.log(), atol=1e-6)
    assert matching(torch.tensor([[1.0, 4.0], [3.0, 0.0]]), torch.tensor([[2.0, 0.0]])) == 2.0


def test_only_sure_answers_teach_and_no_class_is_favoured():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    lost = torch.nn.functional.cross_entropy(logits[:1], torch.tensor([1])) / 2
    assert torch.allclose(sure_loss(logits, torch.tensor([[0.01, 0.99], [0.6, 0.4]]), 0.9), lost)
    corrected = aligned(torch.tensor([[0.6, 0.4], [0.9, 0.1]]), torch.tensor([0.75, 0.25]))
    assert torch.allclose(corrected, torch.tensor([[1 / 3, 2 / 3], [0.75, 0.25]]))


def test_images_are_moved_each_otherwise_and_the_same_every_time():
    playing = game(plan(shift=2, turn=30, zoom=0.2))
    still = playing.labelled.batch(torch.zeros(20, dtype=torch.int64))[0]
    moved = playing._moved(still, "labelled")
    assert torch.equal(moved, playing._moved(still, "labelled"))
    assert moved.shape == still.shape and moved.min() >= 0 and moved.max() <= 1
    assert len(torch.unique(moved.flatten(1), dim=0)) == 20
    assert not torch.equal(moved, playing._moved(still, "unlabelled"))
    assert torch.equal(game(plan())._moved(still, "labelled"), still)


def test_layers_start_with_outputs_of_mean_0_and_variance_1():
    network = build("noisy-mlp-discriminator", shape=(1, 8, 8)).train()
    seen: list[torch.Tensor] = []
    with standardising(network):
        network(torch.rand(500, 1, 8, 8))
    for module in network.modules():
        if isinstance(module, NormalisedLinear):
            module.register_forward_hook(lambda _, inputs, output: seen.append(output.detach()))
    network(torch.rand(2000, 1, 8, 8))
    assert len(seen) == 6
    for output in seen:
        assert abs(output.std(0).mean() - 1) < 0.1
        assert abs(output.mean(0)).mean() < 0.15


def test_it_learns_from_few_labels_and_leaves_a_classifier():
    values = {"epochs": 8, "generator": {"hidden": [50, 50]}, "discriminator": {"hidden": [100, 50]}}
    outcome = semi_train(plan(**values), Context(out=Path("clf.pt")))
    result = json.loads((outcome.files[-1] / "result.json").read_text())
    assert result == outcome.result
    classifier = load_model("clf.pt", role="classifier")
    assert classifier.hash == Store().hash("digits-noisy-mlp-semi-100") == result["model"]["hash"]
    assert (outcome.files[-1] / "curves.png").exists() and (outcome.files[-1] / "grid.png").exists()
    generator = load_model(outcome.files[-1] / "generator.safetensors", role="generator")
    assert generator.network.latent_dim == 100
    test = load_data("digits", "test")
    with torch.no_grad():
        right = int((classifier(test.batch(torch.arange(359))[0]).argmax(1) == test.labels).sum())
    assert result["test"]["clean"] == 359 - right < 90
    assert result["test"]["clean"] <= result["test"]["n"] and result["test"]["attacked"] == 20
    train = load_data("digits", "train")
    assert train.labels[torch.tensor(result["label_ids"])].bincount().tolist() == [10] * 10
    assert semi_train(plan(**values), Context(out=outcome.files[-1])).result == outcome.result


CONV = {"generator": {"channels": [8, 8, 8]}, "discriminator": {"channels": [4, 4]}}


@pytest.mark.parametrize("values", [{"teach": 1.0}, {"arch": "conv-gan", **CONV}])
def test_an_interrupted_game_ends_with_the_same_bits(values):
    config = plan(shift=1, turn=10, zoom=0.1, **values)
    whole = game(config)
    while whole.step < 6:
        whole.play()
    parts = game(config)
    for _ in range(3):
        parts.play()
    again = game(config)
    again.restore(parts.state())
    for _ in range(3):
        again.play()
    for name in ("classifier", "ema", "generator"):
        mine, theirs = again.state()[name], whole.state()[name]
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine), name
    other = game(plan(seed=1, **values))
    assert not torch.equal(next(other.generator.parameters()), next(whole.generator.parameters()))


class Interrupted(Progress, Task):
    left = 2

    def task(self, *args, **kwargs):
        return self

    def advance(self, n=1, **facts):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_an_interrupted_command_goes_on():
    with pytest.raises(KeyboardInterrupt):
        semi_train(plan(), Context(out=Path("cut"), progress=Interrupted()))
    resumed = semi_train(plan(), Context(out=Path("cut"), resume=True))
    whole = semi_train(plan(), Context(out=Path("whole")))
    assert resumed.result["model"]["hash"] == whole.result["model"]["hash"]
    assert Path("cut/metrics.jsonl").read_text() == Path("whole/metrics.jsonl").read_text()


def test_labels_beyond_the_few_are_not_looked_at(monkeypatch):
    first = semi_train(plan(), Context()).result
    honest = load_data

    def scrambled(name, split="test", **rest):
        data = honest(name, split, **rest)
        if split == "test":
            return replace(data, labels=data.labels.roll(1))
        labels = torch.full_like(data.labels, 3)
        known = data.balanced(100)
        labels[known] = data.labels[known]
        hidden = replace(data, labels=labels)
        object.__setattr__(hidden, "balanced", lambda *arguments: known)
        return hidden

    monkeypatch.setattr(semi_command, "load_data", scrambled)
    other = semi_train(plan(), Context()).result
    assert first["model"]["hash"] == other["model"]["hash"]
    assert first["test"]["clean"] != other["test"]["clean"]


def test_other_label_sets_are_other_labels():
    one, other = (semi_train(plan(label_set=number), Context()).result["label_ids"] for number in (0, 1))
    assert one != other


def test_it_begins_with_the_discriminator(discriminator):
    config = validate(SemiSupervised, {"model": "critic", "batch_size": 50}, "test")
    begun = game(config, discriminator)
    theirs = discriminator.network.state_dict()
    mine = begun.model.network.trunk.state_dict()
    assert begun.pair == "conv-gan"
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    outcome = semi_train(plan(model="critic", generator={}, discriminator={}), Context())
    (parent,) = outcome.result["card"]["lineage"]
    assert (parent["relation"], parent["hash"]) == ("fine-tuned-from", discriminator.hash)


def test_the_rate_falls_to_0():
    playing = game(plan(epochs=2))
    rates = []
    while playing.step < playing.steps:
        playing.play()
        rates.append(playing.optimisers["classifier"].param_groups[0]["lr"])
    assert rates[0] == rates[len(rates) // 2] == playing.config.rate
    assert rates[-1] < playing.config.rate / 10
    assert rates == sorted(rates, reverse=True)


def test_divergence_is_told():
    with pytest.raises(DivergedError, match="smaller --rate"):
        playing = game(plan(rate=1e30))
        train_semi(playing)


@pytest.mark.parametrize(
    ("values", "fault", "said"),
    [
        ({"arch": "noisy-mpl"}, ConfigError, "did you mean 'noisy-mlp'"),
        ({"labels": 7}, DataError, "7 labels .* 10 classes"),
        ({"model": "critic", "arch": "mlp-gan", "discriminator": {}}, ConfigError, "leave --arch out"),
        ({"model": "critic"}, ConfigError, "leave --set discriminator"),
        ({"model": "critc"}, ModelError, "did you mean 'critic'"),
        ({"norm": "l2"}, ConfigError, "needs its budget"),
    ],
)
def test_faults_are_found_before_there_is_a_folder(values, fault, said, discriminator):
    with pytest.raises(fault, match=said):
        semi_train(plan(**values), Context(out=Path("run")))
    assert not Path("run").exists()


def test_a_dry_run_leaves_nothing(tmp_path):
    outcome = semi_train(plan(), Context(dry_run=True))
    assert outcome.result["updates"] == 29 and list(tmp_path.iterdir()) == []
