"""``advkit semi-train``: the losses of the game, its resume, and what it leaves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from advkit.commands.semi_train import run as semi_train
from advkit.core import files, rng
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.core.threat import Threat
from advkit.data.load import load_data
from advkit.models.layers import NormalisedLinear, standardising
from advkit.models.load import load_model
from advkit.models.network import build
from advkit.models.store import Store
from advkit.report.training import errors as errors_table
from advkit.reuse import tested
from advkit.reuse.result import AttackFacts, Errors
from advkit.reuse.semi_game import SemiGame, aligned, fake_loss, matching, real_loss, sure_loss
from advkit.reuse.settings import SemiSupervised

SMALL = {
    "epochs": 1,
    "batch_size": 50,
    "checkpoint_every": 10,
    "generator": {"latent_dim": 4, "hidden": [16, 16]},
    "discriminator": {"hidden": [24, 16]},
}


@pytest.fixture(autouse=True)
def few_attacks(monkeypatch):
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


def test_images_are_moved_by_uniform_numbers_each_otherwise_and_the_same_every_time():
    """Read off a picture of its own coordinates: shift in pixels, turn in degrees, zoom to both sides."""
    playing = game(plan(shift=2, turn=30, zoom=0.2))
    v, u = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    moved = playing._moved(torch.stack([u, v]).expand(1000, 2, 33, 33), "labelled")
    middle = moved[:, :, 16, 16] - 16
    across, down = ((moved[:, :, *at] - moved[:, :, 16, 16]) for at in ((16, 17), (17, 16)))
    size, turn = across.norm(dim=1), torch.rad2deg(torch.atan2(across[:, 1], across[:, 0]))
    torch.testing.assert_close(down, torch.stack([-across[:, 1], across[:, 0]], 1), rtol=1e-3, atol=1e-3)
    to = -torch.linalg.solve(torch.stack([across, down], 2), middle)  # where the middle is seen
    for drawn, most in ((to[:, 0], 2), (to[:, 1], 2), (turn, 30), (size.log(), math.log(1.2))):
        spread, even = drawn.sort().values, torch.linspace(-most, most, 1000)
        assert (spread - even).abs().max() < 0.15 * most
    still = playing.labelled.batch(torch.zeros(20, dtype=torch.int64))[0]
    assert torch.equal(playing._moved(still, "labelled"), playing._moved(still, "labelled"))
    assert not torch.equal(playing._moved(still, "labelled"), playing._moved(still, "unlabelled"))
    assert torch.equal(game(plan())._moved(still, "labelled"), still)
    for change in ({"shift": 1}, {"turn": 9}, {"zoom": 0.1}):
        assert not torch.equal(game(plan(**change))._moved(still, "labelled"), still)


def test_an_update_is_that_of_the_formulas():
    """Figures, gradients of both players and the teacher's favourites, beside plain computations."""
    small = {"arch": "mlp-gan", "discriminator": {"hidden": [16], "dropout": 0.0}}
    small["generator"] = {"latent_dim": 4, "hidden": [16, 16], "dropout": 0.0}
    config = plan(**small, teach=0.7, sure=0.145, supervised=2.0, ema=0.05)
    playing, other, found = game(config), game(config), {}

    def noted(name):
        network = playing.model if name == "classifier" else playing.generator
        return lambda: found.update({name: [p.grad.clone() for p in network.parameters()]})

    for name, optimiser in playing.optimisers.items():
        optimiser.step = noted(name)
    told = playing.update().tolist()
    x, y = other.labelled.batch(other.labels.batch(0))
    real, _ = other.unlabelled.batch(other.images.batch(0))
    network, generator = other.model.network, other.generator
    fake = generator(generator.draw(rng.keys(config.seed, "latent", torch.arange(50), 0)))
    logits = [network(images) for images in (x, real, fake)]
    odds = [each.logsumexp(1) for each in logits]
    with torch.no_grad():
        said = other.ema.network(real).softmax(1)
    usual = 0.99 * 0.1 + 0.01 * said.mean(0)
    taught = said / usual / (said / usual).sum(1, keepdim=True)
    sure, label = taught.max(1)
    assert 0 < (sure >= 0.145).sum() < 50
    cross = torch.nn.functional.cross_entropy
    supervised = cross(logits[0], y)
    unsupervised = (-odds[1].sigmoid().log().mean() - (-odds[2]).sigmoid().log().mean()) / 2
    lesson = (cross(logits[1], label, reduction="none") * (sure >= 0.145)).mean()
    apart = (network.features(fake).mean(0) - network.features(real).mean(0)).square().mean()
    right = (logits[0].argmax(1) == y).float().mean()
    figures = (supervised, unsupervised, apart, right, odds[1].sigmoid().mean(), odds[2].sigmoid().mean())
    assert told == pytest.approx([figure.item() for figure in figures], rel=1e-4)
    assert torch.allclose(playing.usual, usual, atol=1e-6)
    parameters = {"classifier": list(other.model.parameters()), "generator": list(generator.parameters())}
    losses = {"classifier": 2 * supervised + unsupervised + 0.7 * lesson, "generator": apart}
    for name, loss in losses.items():
        wanted = torch.autograd.grad(loss, parameters[name], retain_graph=True)
        for mine, theirs in zip(found[name], wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    for name, rate in (("classifier", config.rate), ("generator", config.rate_generator)):
        (group,) = playing.optimisers[name].param_groups
        assert (group["lr"], group["betas"]) == (rate, (0.5, 0.999)) and playing.ema.decay == 0.05


def test_errors_are_told_with_exact_intervals():
    rows = {"mine": {"clean": 3, "n": 40, "robust": 9, "attacked": 20}}
    rows = {how: Errors(**row) for how, row in rows.items()}
    told = errors_table(rows, "toy", AttackFacts(**tested.facts(Threat("linf", 0.1))))
    texts = [3, 40, 9, 20]
    for wrong, n in ((3, 40), (9, 20)):
        low, high = (100 * end for end in binomtest(wrong, n).proportion_ci(method="exact"))
        texts.append(f"{100 * wrong / n:.2f} % [{low:.2f}, {high:.2f}]")
    assert told.rows == (("mine", texts[4], "3", "40", texts[5], "20"),) and "PGD-20" in told.columns[4]
    assert len(told.columns) == 6 and "linf eps 0.1" in told.title


def test_layers_start_with_outputs_of_mean_0_and_variance_1():
    seen: list[torch.Tensor] = []
    with rng.scope("cpu", 0, "test"):
        network, more = build("noisy-mlp-discriminator", shape=(1, 8, 8)).train(), torch.rand(2000, 1, 8, 8)
        with standardising(network):
            network(torch.rand(500, 1, 8, 8))
    for module in network.modules():
        if isinstance(module, NormalisedLinear):
            module.register_forward_hook(lambda _, inputs, output: seen.append(output.detach()))
    with rng.scope("cpu", 1, "test"):
        network(more)
    assert len(seen) == 6
    for output in seen:
        assert abs(output.std(0).mean() - 1) < 0.1
        assert abs(output.mean(0)).mean() < 0.15


def test_it_learns_from_few_labels_and_leaves_a_classifier():
    values = {"epochs": 8, "generator": {"hidden": [50, 50]}, "discriminator": {"hidden": [100, 50]}}
    outcome = semi_train(plan(**values), Context(out=Path("clf.pt")))
    result = files.read_json(outcome.files[-1] / "result.json")
    assert result == outcome.result and result["last"]["epoch"] == 8 * 29 * 50 / 1438
    classifier = load_model("clf.pt", role="classifier")
    assert classifier.hash == Store().hash("digits-noisy-mlp-semi-100") == result["model"]["hash"]
    assert (outcome.files[-1] / "curves.svg").exists() and (outcome.files[-1] / "grid.png").exists()
    generator = load_model(outcome.files[-1] / "generator.safetensors", role="generator")
    assert generator.network.latent_dim == 100
    test = load_data("digits", "test")
    with torch.no_grad():
        right = int((classifier(test.batch(torch.arange(359))[0]).argmax(1) == test.labels).sum())
    assert result["test"]["clean"] == 359 - right < 90
    assert result["test"]["clean"] <= result["test"]["n"] and result["test"]["attacked"] == 20
    train = load_data("digits", "train")
    assert train.labels[torch.tensor(result["label_ids"])].bincount().tolist() == [10] * 10


CONV = {"generator": {"channels": [8, 8, 8]}, "discriminator": {"channels": [4, 4]}}


def test_an_interrupted_command_goes_on(stopping):
    with pytest.raises(KeyboardInterrupt):
        semi_train(plan(), Context(out=Path("cut"), progress=stopping))
    resumed = semi_train(plan(), Context(out=Path("cut"), resume=True))
    whole = semi_train(plan(), Context(out=Path("whole")))
    assert resumed.result["model"]["hash"] == whole.result["model"]["hash"]
    assert Path("cut/metrics.jsonl").read_text(encoding="utf-8") == Path("whole/metrics.jsonl").read_text(
        encoding="utf-8"
    )


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

    monkeypatch.setattr("advkit.data.load.load_data", scrambled)
    other = semi_train(plan(), Context()).result
    assert first["model"]["hash"] == other["model"]["hash"]
    assert first["test"]["clean"] != other["test"]["clean"]


def test_it_begins_with_the_discriminator(discriminator):
    config = validate(SemiSupervised, {"model": "critic", "batch_size": 50}, "test")
    begun = game(config, discriminator)
    theirs = discriminator.network.state_dict()
    mine = begun.model.network.trunk.state_dict()
    assert begun.pair == "conv-gan"
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    outcome = semi_train(plan(model="critic", generator={}, discriminator={}, label_set=1), Context())
    assert outcome.result["label_ids"] != semi_train(plan(), Context()).result["label_ids"]
    (parent,) = outcome.result["card"]["lineage"]
    assert (parent["relation"], parent["hash"]) == ("fine-tuned-from", discriminator.hash)


def test_both_rates_stay_for_two_thirds_and_fall_to_0_on_a_line():
    playing, rates = game(plan()), []
    while playing.step < playing.steps:
        playing.update()
        rates.append([each.param_groups[0]["lr"] for each in playing.optimisers.values()])
    assert playing.steps == 29
    shares = np.minimum(1, 3 * (1 - np.arange(29) / 29))
    np.testing.assert_allclose(rates, np.outer(shares, [playing.config.rate, playing.config.rate_generator]))


def test_faults_are_found_before_there_is_a_folder(discriminator):
    for values, fault in (
        ({"arch": "noisy-mpl"}, ConfigError),
        ({"labels": 7}, DataError),
        ({"model": "critic", "arch": "mlp-gan", "discriminator": {}}, ConfigError),
        ({"model": "critic"}, ConfigError),
        ({"model": "critc"}, ModelError),
        ({"norm": "l2"}, ConfigError),
    ):
        with pytest.raises(fault):
            semi_train(plan(**values), Context(out=Path("run")))
    assert semi_train(plan(), Context(dry_run=True)).result["passes"] == 5 * 29 * 50
    assert not Path("run").exists()
