"""S1 to S8: generative models of digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import advkit
from advkit.cli.recipes import load
from advkit.core import rng
from advkit.core.errors import DivergedError
from advkit.data.sets import downloaded
from advkit.gan.judge import prepared
from advkit.gan.loss import GAN_LOSSES
from advkit.models.network import ARCHITECTURES, build, numbers

MNIST = (1, 28, 28)
SHORT = {"data": "digits", "steps": 4, "sample_every": 4, "progress": False}
FLAGS = "--data digits --steps 4 --sample-every 4"
ADAM = ("rate_generator", "rate_discriminator", "beta1")


def layers(network: nn.Module) -> list[str]:
    """The kinds of its layers in order, without containers."""
    return [type(layer).__name__ for layer in network.modules() if not list(layer.children())]


def trained(network: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def same_models(told: dict, run: advkit.functions.Run) -> None:
    """Command line and Python left the same networks, which load again with the hashes of the result."""
    assert set(told["models"]) == set(run.figures["models"]) == set(run.models)
    for name, model in run.models.items():
        assert model.hash == told["models"][name]["hash"] == run.figures["models"][name]["hash"]
        assert numbers(model.network) == told["models"][name]["parameters"]


def test_s01_small_gan(shell):
    """S1: the small GAN of MNIST, transposed convolutions against one dense layer, with BCE."""
    generator = build("dense-conv-gan-generator", shape=MNIST)
    assert (generator.latent_dim, numbers(generator)) == (100, 839_937)
    assert layers(generator) == [
        "Linear",
        "ReLU",
        "Unflatten",
        "ConvTranspose2d",
        "ReLU",
        "ConvTranspose2d",
        "Tanh",
    ]
    assert generator.layers[0].out_features == 128 * 7 * 7
    assert {layer.kernel_size for layer in generator.layers if isinstance(layer, nn.ConvTranspose2d)} == {
        (5, 5)
    }
    latent = generator.draw(rng.keys(0, "test", torch.arange(200)))
    assert latent.std().item() == pytest.approx(1, abs=0.03) and latent.min() < -2  # normal, not uniform
    discriminator = build("dense-conv-gan-discriminator", shape=MNIST)
    assert layers(discriminator) == ["Flatten", "Linear", "ReLU", "Linear"]
    assert (discriminator.trunk[1].out_features, discriminator.head.out_features) == (128, 1)

    small = "--set generator.channels=[8,4] --set discriminator.hidden=8"
    told = shell(
        f"advkit gan-train --arch dense-conv-gan --loss bce --batch-size 32 {FLAGS} {small} --out cli"
    )
    run = advkit.gan_train(
        arch="dense-conv-gan",
        loss="bce",
        batch_size=32,
        generator={"channels": [8, 4]},
        discriminator={"hidden": 8},
        **SHORT,
    )
    same_models(told, run)
    row = run.history[-1]
    assert {"step", "d_loss", "d_accuracy_real", "d_accuracy_fake", "g_loss"} <= set(row)
    assert {"grid.png", "curves.svg", "report.html"} <= {path.name for path in Path("cli").iterdir()}


def test_s02_three_networks(shell):
    """S2: a GAN with an auxiliary network A(x), which rewards what looks generated (D2GAN)."""
    run = advkit.gan_train(
        arch="mlp-gan",
        loss="d2gan",
        generator={"hidden": [8]},
        discriminator={"hidden": [8]},
        **SHORT,
    )
    told = shell(
        f"advkit gan-train --arch mlp-gan --loss dual-discriminator {FLAGS} --out cli "
        "--set generator.hidden=[8] --set discriminator.hidden=[8]"
    )
    same_models(told, run)
    assert {"generator", "discriminator", "auxiliary"} <= set(run.models)
    assert run.models["auxiliary"].hash != run.models["discriminator"].hash
    verdict = run.models["auxiliary"](torch.rand(3, 1, 8, 8))
    assert verdict.shape == (3,) and bool(verdict.isfinite().all())
    assert GAN_LOSSES.get("dual-discriminator").discriminators == ("discriminator", "auxiliary")


def test_s03_convolutional_gan_with_leaky_relu(shell):
    """S3: nearest upsampling against strided convolutions with LeakyReLU, dropout and batch norm."""
    discriminator, generator = (
        build(f"upsampling-gan-{role}", shape=MNIST) for role in ("discriminator", "generator")
    )
    assert layers(discriminator) == (
        [
            "Conv2d",
            "LeakyReLU",
            "Dropout",
            "Conv2d",
            "BatchNorm2d",
            "LeakyReLU",
            "Dropout",
            "Flatten",
            "Linear",
        ]
    )
    assert layers(generator) == [
        "Linear",
        "ReLU",
        "Unflatten",
        "Upsample",
        "Conv2d",
        "ReLU",
        "Upsample",
        "Conv2d",
        "Tanh",
    ]
    first, slope, dropped, second, norm = discriminator.trunk[:5]
    assert (first.out_channels, second.out_channels, first.kernel_size, first.stride) == (
        64,
        128,
        (5, 5),
        (2, 2),
    )
    assert (slope.negative_slope, dropped.p, norm.momentum) == (0.2, 0.3, pytest.approx(1 - 0.8))
    assert (trained(discriminator), trained(generator)) == (213_121, 839_937)

    small = "--set generator.channels=[8,4] --set discriminator.channels=[4,4]"
    told = shell(
        f"advkit gan-train --arch upsampling-gan --loss bce --batch-size 16 {FLAGS} {small} --out cli"
    )
    run = advkit.gan_train(
        arch="upsampling-gan",
        loss="bce",
        batch_size=16,
        generator={"channels": [8, 4]},
        discriminator={"channels": [4, 4]},
        **SHORT,
    )
    same_models(told, run)
    assert [run.figures["config"][key] for key in ADAM] == [2e-4, 2e-4, 0.5]
    assert list(Path("cli/samples").iterdir())


def test_s04_textbook_step(shell, gan):
    """S4: BCE with two optimisers, the saturating and the other generator loss, a saved generator."""
    small = {"arch": "mlp-gan", "generator": {"hidden": [8]}, "discriminator": {"hidden": [8]}}
    one = {name: advkit.gan_train(loss=name, **small, **SHORT | {"steps": 1}) for name in ("minimax", "bce")}
    saturating, other = (run.history[-1] for run in one.values())
    assert saturating["d_loss"] == pytest.approx(other["d_loss"])  # the same discriminator, the same images
    assert saturating["g_loss"] < 0 < other["g_loss"]  # log(1 - D) and -log D
    drawn = shell(f"advkit gan-sample --model {gan}-ema --n 9 --seed 1 --out few.png")
    again = advkit.gan_sample(model=f"{gan}-ema", n=9, seed=1, out="again.png")
    assert Path("few.png").read_bytes() == Path("again.png").read_bytes()
    assert drawn["model"]["hash"] == again.figures["model"]["hash"] == advkit.load_model(f"{gan}-ema").hash


def test_s05_mlp_gan(shell, place, gan):
    """S5: the dense GAN, with uniform latent vectors, batch norm and dropout."""
    generator, discriminator = (
        build(f"mlp-gan-{role}", shape=MNIST) for role in ("generator", "discriminator")
    )
    block = ["Linear", "ReLU", "BatchNorm1d"]
    assert layers(generator) == [*block * 3, "Dropout", "Linear", "Sigmoid", "Unflatten"]
    assert layers(discriminator) == ["Flatten", "Dropout", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    widths = [layer.out_features for layer in generator.layers if isinstance(layer, nn.Linear)]
    assert widths == [256, 512, 1024, 784]
    latent = generator.draw(rng.keys(0, "test", torch.arange(200)))
    assert latent.shape == (200, 100) and latent.min() >= 0 and latent.max() < 1
    command, recipe = load("gan/mnist-mlp-gan")
    assert command.name == "gan-train" and [getattr(recipe, key) for key in ADAM] == [2e-4, 2e-4, 0.5]
    assert (recipe.batch_size, recipe.steps, recipe.sample_every) == (128, 12_001, 200)

    small = "--set steps=4 --set sample_every=2 --set generator.hidden=[8] --set discriminator.hidden=[8]"
    told = shell(f"advkit run gan/mnist-mlp-gan --set data=digits {small} --out cli")
    assert told["last"].keys() >= {"d_loss", "d_accuracy", "g_loss"}
    assert len(list(Path("cli/samples").iterdir())) == 2
    rows = [json.loads(line) for line in (place / "gan" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 300  # the one of Python has its metrics too
    assert {"curves.svg", "grid.png", "training.gif"} <= {path.name for path in (place / "gan").iterdir()}


def test_s06_convolutional_gan_with_a_critic(shell):
    """S6: transposed convolutions with batch norm against a convolutional critic."""
    assert ARCHITECTURES.entry("conv-gan-critic").name == "conv-gan-discriminator"
    generator, critic = build("conv-gan-generator", shape=MNIST), build("conv-gan-critic", shape=MNIST)
    assert (numbers(generator), numbers(critic)) == (2_343_681, 212_865)  # running statistics included
    _, recipe = load("gan/mnist-conv-gan")
    assert (recipe.batch_size, recipe.steps, recipe.sample_every) == (64, 12_001, 400)

    small = "--set generator.channels=[8,4,4] --set discriminator.channels=[4,4]"
    told = shell(f"advkit gan-train --arch conv-gan --loss bce {FLAGS} {small} --out cli")
    run = advkit.gan_train(
        arch="conv-gan",
        loss="bce",
        generator={"channels": [8, 4, 4]},
        discriminator={"channels": [4, 4]},
        **SHORT,
    )
    same_models(told, run)
    shell("advkit gan-sample --model cli/ema.safetensors --n 400 --out digits.png")
    advkit.gan_sample(model="cli/ema.safetensors", n=400, out="python.png")
    with Image.open("digits.png") as picture:
        assert picture.size[0] == picture.size[1] >= 20 * 8
    assert Path("digits.png").read_bytes() == Path("python.png").read_bytes()


def test_s07_vae_beside_the_gan(shell, place, gan):
    """S7: a VAE of the same data, its decoder sampled into the same grid, compared by the same metrics."""
    small = {"channels": [4, 4], "hidden": 8, "decoder_config": {"channels": [8, 4, 4], "latent_dim": 8}}
    run = advkit.gan_train(kind="vae", generator=small, name="tiny-vae", **SHORT)
    assert {"grid.png", "ema.safetensors"} <= {path.name for path in run.folder.iterdir()}
    assert run.figures["seconds"] > 0 and run.models["vae"].card.role == "vae"
    shell("advkit gan-sample --model tiny-vae-ema --n 400 --out vae.png")
    metrics = "fid,precision-recall,density-coverage"
    folder = place / "gan"
    told = shell(f"advkit gan-compare {run.folder} {folder} --n 60 --metrics {metrics} --out cli")
    compared = advkit.gan_compare(
        model=[str(run.folder), str(folder)], n=60, metrics=metrics.split(","), progress=False
    )
    assert told["figures"] == compared.figures["figures"]
    values = [one["values"] for one in told["generators"]]
    assert len(values) == 2 and values[0].keys() == values[1].keys() and values[0] != values[1]
    assert values == [one["values"] for one in compared.figures["generators"]]
    assert all(one["training_seconds"] > 0 for one in told["generators"])


def test_s08_mode_collapse_is_seen_and_measured(shell, monkeypatch, tmp_path, gan):
    """S8: training says that the generator has lost diversity; the Stacked-MNIST benchmark counts modes."""
    collapsed = "--arch mlp-gan --set generator.hidden=[8] --set discriminator.hidden=[8]"
    told = shell(f"advkit gan-train {collapsed} {FLAGS} --out cli")
    assert told["last"]["diversity"] < 0.3 and told["warnings"]
    with pytest.raises(DivergedError):
        advkit.gan_train(
            arch="mlp-gan",
            generator={"hidden": [8]},
            discriminator={"hidden": [8]},
            stop_on_collapse=True,
            **SHORT | {"steps": 12, "sample_every": 2},
        )
    mnist_in_small(tmp_path, monkeypatch)
    stacks = "--data stacked-mnist --data-dir mnist"
    shell(f"advkit gan-train --steps 2 --batch-size 8 --sample-every 2 {collapsed} {stacks} --out stacks")
    measured = shell(f"advkit gan-eval --model stacks {stacks} --metrics modes --n 30 --out modes")
    again = advkit.gan_eval(
        model="stacks", data="stacked-mnist", data_dir="mnist", metrics=["modes"], n=30, progress=False
    )
    (values,) = (one["values"] for one in measured["generators"])
    assert 1 <= values["modes"] <= 30 and values["mode_kl"] > 0
    assert again.figures["generators"][0]["values"] == values
    assert len(advkit.load_data("stacked-mnist", "test", root="mnist").class_names) == 1000


def mnist_in_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in MNIST's own format with the bundled digits, enlarged, and a small Stacked MNIST of them."""
    monkeypatch.setattr(downloaded, "STACKED_SIZES", {"train": 60, "test": 30})
    raw = folder / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, split in (("train", "train"), ("t10k", "test")):
        digits = advkit.load_data("digits", split, limit=100)
        images = (255 * prepared(digits.images[:])).round().byte()
        head = (2051).to_bytes(4, "big") + (100).to_bytes(4, "big") + 2 * (28).to_bytes(4, "big")
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(head + images.numpy().tobytes())
        head = (2049).to_bytes(4, "big") + (100).to_bytes(4, "big")
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(head + digits.labels.byte().numpy().tobytes())
