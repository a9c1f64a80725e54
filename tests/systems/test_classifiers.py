"""S9, S10 and S16: classifiers made of discriminators, of generated images, and against an attacker."""

from __future__ import annotations

import numpy as np
import pytest

import advkit
from advkit.models.checkpoint import load_checkpoint

SHORT = "--epochs 2 --checks 1"


def test_s09_discriminator_as_classifier(shell, gan):
    """S9: a trained discriminator with a 10-way head, fine-tuned on few labels, beside one from scratch."""
    told = shell(f"advkit finetune --model {gan}-discriminator --labels 100 --scratch {SHORT} --out clf.pt")
    run = advkit.finetune(
        model=f"{gan}-discriminator",
        labels=100,
        scratch=True,
        epochs=2,
        checks=1,
        progress=False,
    )
    assert told["labels"] == 100 == len(set(run.figures["label_ids"]))
    assert told["label_ids"] == run.figures["label_ids"]
    assert set(told["test"]["errors"]) == {"fine-tuned", "from scratch"}
    classifier = load_checkpoint("clf.pt")
    assert classifier.hash == told["model"]["hash"] == run.model.hash
    assert (classifier.card.role, classifier.card.classes) == ("classifier", 10)
    assert (
        classifier.card.lineage[0].hash
        == advkit.load_model(f"{gan}-discriminator", role="discriminator").hash
    )
    x, y = advkit.load_data("digits", "test").batch(slice(None))
    right = int((classifier(x).argmax(1) == y).sum())
    assert (
        right
        == told["test"]["correct"]["fine-tuned"]
        == told["test"]["n"] - told["test"]["errors"]["fine-tuned"]["clean"]
    )


@pytest.mark.parametrize("objective", ["standard", "pgd"])
def test_s10_generator_as_augmenter(shell, gan, classifier, objective):
    """S10: labelled generated images join a classifier's training set, ordinary or adversarial."""
    shell(f"advkit gan-sample --model {gan}-ema --labels --n 40 --out asked.npz")
    advkit.gan_sample(
        model=f"{gan}-ema", n=20, classifier=classifier, confidence=0.3, out="told.npz", progress=False
    )
    with np.load("asked.npz") as asked, np.load("told.npz") as told:
        assert (asked["x"].shape, told["x"].shape) == ((40, 1, 8, 8), (20, 1, 8, 8))
        assert np.bincount(asked["y"]).tolist() == [4] * 10 and np.bincount(told["y"]).tolist() == [2] * 10
    words = (
        f"--data digits --arch mlp --objective {objective} --extra-data npz:asked.npz --extra-fraction 0.5"
    )
    more = "--set architecture.hidden=[8] --name augmented --out augmented.pt"
    figures = shell(f"advkit adv-train {words} {SHORT} --eps 0.05 {more}")
    run = advkit.adv_train(
        data="digits",
        arch="mlp",
        objective=objective,
        extra_data="npz:asked.npz",
        extra_fraction=0.5,
        eps=0.05,
        architecture={"hidden": [8]},
        epochs=2,
        checks=1,
        name="augmented",
        progress=False,
    )
    assert load_checkpoint("augmented.pt").hash == figures["model"]["hash"] == run.model.hash
    assert run.figures["config"]["extra_data"] == "npz:asked.npz"


@pytest.mark.parametrize("objective", ["pgd", "advgan"])
def test_s16_adversarial_training(shell, classifier, objective):
    """S16: training on clean and adversarial images, made by gradients or by a generator network."""
    own = {
        "pgd": {"steps": 3, "clean_weight": 0.5},
        "advgan": {
            "generator": {"width": 2, "depth": 1},
            "opponent": "mlp-gan",
            "discriminator": {"hidden": [8]},
        },
    }[objective]
    flags = {
        "pgd": "--set parameters.steps=3 --set parameters.clean_weight=0.5",
        "advgan": "--set parameters.generator.width=2 --set parameters.generator.depth=1 "
        "--set parameters.opponent=mlp-gan --set parameters.discriminator.hidden=[8]",
    }[objective]
    words = f"--model {classifier} --objective {objective} --eps 0.1 --epochs 5 --checks 1 {flags}"
    told = shell(f"advkit adv-train {words} --name hard --out hard.pt")
    run = advkit.adv_train(
        model=classifier,
        objective=objective,
        eps=0.1,
        epochs=5,
        checks=1,
        parameters=own,
        name="hard",
        progress=False,
    )
    assert load_checkpoint("hard.pt").hash == told["model"]["hash"] == run.model.hash
    before, after = told["test"]["before"], told["test"]["after"]
    assert {"clean", "robust", "n"} <= set(before) and before["n"] == after["n"]
    assert after["clean"] >= after["robust"] and before["clean"] >= before["robust"]
    if objective == "pgd":  # so small a generator is no attacker to learn from
        assert after["robust"] > before["robust"]
    card = run.model.card
    assert (card.threat.norm, card.threat.eps) == ("linf", 0.1)
    assert card.lineage[0].hash == advkit.load_model(classifier).hash
