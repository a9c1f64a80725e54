"""S11 to S14 and S18: adversarial examples and patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import advkit
from advkit.models.checkpoint import load_checkpoint

EPS = 0.15


def attacked(shell, model: str, attack: str, n: int = 20, **parameters: dict) -> dict:
    """The figures of one evaluation from the command line, which are those of the same one from Python."""
    flags = [
        f"--set parameters.{name}.{key}={value}"
        for name, own in parameters.items()
        for key, value in own.items()
    ]
    told = shell(
        f"advkit attack --model {model} --n {n} --norm linf --eps {EPS} --attack {attack} --out attacked "
        + " ".join(flags)
    )
    result = advkit.evaluate(
        model, "digits", advkit.Threat("linf", EPS), attack.split(","), parameters=parameters, n=n
    )
    assert (told["clean_correct"], told["robust_correct"]) == (result.clean_correct, result.robust_correct)
    assert told["robust_correct"] <= told["clean_correct"] <= n
    broken = sum(stage["broken"] for stage in told["stages"])
    assert told["clean_correct"] - broken == told["robust_correct"]
    return told


@pytest.mark.parametrize(("attack", "queries"), [("square", 40), ("nes", 60), ("hop-skip-jump", 60)])
def test_s11_black_box(shell, classifier, attack, queries):
    """S11: attacks that see only scores or only decisions, under a query limit."""
    told = attacked(shell, classifier, attack, 10, **{attack: {"queries": queries}})
    (stage,) = told["stages"]
    assert stage["backwards"] == 0 and stage["parameters"]["queries"] == queries
    assert stage["forwards"] <= queries * stage["attacked"]


def test_s12_white_box(shell, classifier):
    """S12: attacks that see gradients; loss, optimiser and budget are named in the result."""
    told = attacked(shell, classifier, "pgd", 20, pgd={"steps": 10, "loss": "margin"})
    (stage,) = told["stages"]
    assert (stage["attack"], stage["parameters"]["steps"], stage["parameters"]["loss"]) == (
        "pgd",
        10,
        "margin",
    )
    assert 0 < stage["backwards"] <= 10 * stage["attacked"] and stage["broken"] > 0
    x, y = advkit.load_data("digits", "test").batch(torch.arange(20))
    threat, model = advkit.Threat("linf", EPS), advkit.load_model(classifier)
    made = advkit.perturb(model, x, y, threat, "pgd", parameters={"steps": 10})
    images = made.x
    assert torch.equal(made.success, model(images).argmax(1) != y)
    assert images.shape == x.shape and bool(threat.contains(x, images).all())
    assert int((model(images).argmax(1) == y).sum()) < int((model(x).argmax(1) == y).sum())


def test_s13_random_noise(shell, classifier):
    """S13: random noise of the same size beside the attacks, to see how much less it finds."""
    told = attacked(shell, classifier, "noise,pgd", 60, noise={"draws": 3}, pgd={"steps": 10})
    noise, pgd = told["stages"]
    assert (noise["attack"], pgd["attack"]) == ("noise", "pgd") and noise["backwards"] == 0
    assert pgd["attacked"] == told["clean_correct"] - noise["broken"]
    assert noise["broken"] < pgd["broken"]


def test_s14_generator_of_adversarial_examples(shell, classifier):
    """S14, first half: a network that makes an adversarial image of a clean one in one pass (AdvGAN)."""
    own = "--set generator.width=2 --set generator.depth=1 --opponent mlp-gan --set discriminator.hidden=[8]"
    words = f"--model {classifier} --norm linf --eps {EPS} --n 40 --steps 60 --checks 1 --name tiny-advgan"
    told = shell(f"advkit advgan-train {words} {own} --out cli")
    run = advkit.advgan_train(
        model=classifier,
        norm="linf",
        eps=EPS,
        n=40,
        steps=60,
        checks=1,
        name="tiny-advgan",
        generator={"width": 2, "depth": 1},
        opponent="mlp-gan",
        discriminator={"hidden": [8]},
        progress=False,
    )
    generator = load_checkpoint("cli/model.safetensors")
    assert generator.hash == told["model"]["hash"] == run.figures["model"]["hash"]
    assert generator.card.role == "perturbation-generator"
    attack = attacked(shell, classifier, "advgan:tiny-advgan")  # each image is made in one pass
    assert attack["stages"][0]["attack"] == "advgan:tiny-advgan" and attack["stages"][0]["backwards"] == 0
    assert told["hits_by_noise"] <= told["hits"] <= told["judged"] <= told["clean_correct"] <= 40
    assert told["rate"] == pytest.approx(told["hits"] / told["judged"])


def test_s14_search_in_latent_space(shell, classifier, gan):
    """S14, second half: natural adversarial digits, found by Monte-Carlo search in a GAN's latent space."""
    words = f"--model {classifier} --generator {gan}-ema --n 4"
    told = shell(f"advkit natural {words} --steps 20 --restarts 1 --rings 4 --samples 10 --out natural")
    run = advkit.natural(
        model=classifier,
        generator=f"{gan}-ema",
        n=4,
        steps=20,
        restarts=1,
        rings=4,
        samples=10,
        progress=False,
    )
    assert told["images"] == run.figures["images"] and len(told["images"]) == told["clean_correct"]
    assert 0 <= told["legitimate"] <= told["found"] <= told["clean_correct"] <= 4
    assert all(one["said"] != one["label"] for one in told["images"] if one["found"])
    told = shell(f"advkit unrestricted {words} --search monte-carlo --passes 10 --out unrestricted")
    run = advkit.unrestricted(
        model=classifier, generator=f"{gan}-ema", n=4, search="monte-carlo", passes=10, progress=False
    )
    assert told["examples"] == run.figures["examples"] and told["search"] == "monte-carlo"
    assert all(one["passes"] <= 10 for one in told["examples"])


def test_s18_patch(shell, classifier):
    """S18: a printable patch, trained over random places, sizes and rotations, that makes a class be seen."""
    words = f"--model {classifier} --target 3 --n 30 --steps 20 --print-pixels 40"
    told = shell(f"advkit patch {words} --out cli")
    run = advkit.patch(model=classifier, target=3, n=30, steps=20, print_pixels=40, progress=False)
    judged = told["classifiers"][0]
    assert judged == {**run.figures["classifiers"][0]}
    assert (told["target"], told["target_name"]) == (3, "3")
    assert judged["anywhere"]["patch"] <= judged["judged"] <= judged["clean_correct"] <= 30
    assert judged["rate"] == pytest.approx(judged["anywhere"]["patch"] / judged["judged"])
    with Image.open("cli/patch.png") as picture:
        assert picture.size == (40, 40)
    with np.load(next(Path("cli").glob("*.npz"))) as arrays:
        patch = arrays["patch"]
    assert patch.shape[-1] == told["pixels"] and patch.min() < patch.max()
