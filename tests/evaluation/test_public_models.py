"""Classifiers that others trained and published, on the real test images: what their authors say holds."""

import os
from pathlib import Path

import pytest
import torch

import advkit
from advkit.core.stats import clopper_pearson

pytestmark = pytest.mark.skipif(
    not {"ADVKIT_DATA", "ADVKIT_SUBJECTS"} <= os.environ.keys(),
    reason="set ADVKIT_DATA (with MNIST and cifar10-test.npz) and ADVKIT_SUBJECTS (the public models)",
)

CIFAR = {"mean": (0.4914, 0.4824, 0.4467), "std": (0.2471, 0.2435, 0.2616)}


def model(name, **more):
    return advkit.load_model(Path(os.environ["ADVKIT_SUBJECTS"]) / name, **more)


@pytest.mark.parametrize(
    ("name", "architecture", "data", "clean", "more"),
    [
        ("mnist_lenet5_clntrained.pt", "lenet", "mnist", 0.9889, {}),
        ("mnist_lenet5_advtrained.pt", "lenet", "mnist", 0.9864, {}),
        ("convex_adversarial_mnist.pth", "small-cnn", "mnist", 0.9820, {}),
        ("cifar_cnn_a_adv.pth", "small-cnn", "cifar10", 0.656, CIFAR),
    ],
)
def test_clean_accuracy_is_the_published_one(name, architecture, data, clean, more):
    images = advkit.load_data(data, limit=1000)
    judged = model(name, shape=images.shape, **more)
    assert judged.card.architecture == architecture
    x, y = images.batch(torch.arange(len(images)))
    with torch.no_grad():
        correct = int((judged(x).argmax(1) == y).sum())
    interval = clopper_pearson(correct, len(images), confidence=0.999)
    assert interval.low <= clean <= interval.high


def test_the_ordinary_one_falls_and_the_hardened_one_stands():
    data = advkit.load_data("mnist", limit=40)
    ordinary, hardened = (
        advkit.evaluate(model(f"mnist_lenet5_{name}trained.pt"), data, attack="fgsm,pgd")
        for name in ("cln", "adv")
    )
    assert ordinary.threat.eps == 0.3  # default of MNIST
    assert ordinary.robust_correct == 0 and ordinary.trusted
    assert {check.name for check in ordinary.checks} == {
        "class-order", "clean", "confirmation", "determinism",
    }  # fmt: skip
    assert hardened.robust_correct >= 34 and hardened.trusted
