"""Every training that is stopped and resumed ends with the bits of one that was not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advkit.core import rng
from advkit.core.config import StrictModel, validate
from advkit.core.progress import Progress, Task
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.data.load import load_data
from advkit.gan.settings import GanTraining
from advkit.gan.train import begin
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build
from advkit.reuse.semi_game import SemiGame
from advkit.reuse.settings import SemiSupervised
from advkit.trained_attacks.generators.game import AdvGanGame, GeneratorTraining, WhiteBox
from advkit.trained_attacks.generators.settings import AdvGanSettings
from advkit.trained_attacks.universal.change import Patch, Perturbation
from advkit.trained_attacks.universal.settings import ChangeSettings, PatchSettings
from advkit.trained_attacks.universal.train import ChangeTraining
from advkit.training import loop
from advkit.training.objective import OBJECTIVES
from advkit.training.settings import Fitting
from advkit.training.trainer import Trainer
from advkit.training.training import Training

CPU, THREAT = torch.device("cpu"), Threat("linf", 0.1)
DATA = load_data("digits", "train", limit=100)


def classifier(arch: str, **config: Any) -> Model:
    with rng.scope("cpu", 0, "init"):
        network = build(arch, shape=DATA.shape, classes=10, config=config)
    return Model(
        network, ModelCard(role="classifier", architecture=arch, config=config, shape=DATA.shape, classes=10)
    )


def of_classifier(name: str, parameters: dict[str, Any] | None = None, **settings: Any) -> Trainer:
    """With everything that could spoil a resume: dropout, shifts, attacks, EMA, a best checkpoint."""
    kind, (rest, held) = OBJECTIVES.get(name), DATA.holdout(0.2)
    small = {"channels": [4, 4]}
    model = classifier("trunk-classifier", trunk="conv-gan-discriminator", trunk_config=small)
    objective = kind(validate(kind.Config, parameters or {}, name))
    config = Fitting(epochs=3, batch_size=24, checks=3, shift=1, seed=5, **settings)
    return Trainer(model, config, rest, objective, [THREAT], CPU, {}, held=held)


def of_gan(**settings: Any) -> Training:
    common = {"steps": 8, "batch_size": 8, "sample_every": 4, "checkpoint_every": 3}
    return begin(GanTraining(**common | settings), DATA, CPU)


def of_semi(**settings: Any) -> SemiGame:
    common = {"epochs": 2, "batch_size": 20, "checkpoint_every": 3, "shift": 1, "turn": 10, "zoom": 0.1}
    return SemiGame(SemiSupervised(**common | settings), DATA.limit(50), DATA, None, CPU)


def of_generator(**settings: Any) -> GeneratorTraining:
    small = {"generator": {"width": 4, "depth": 1}, "discriminator": {"channels": (4, 8)}}
    config = AdvGanSettings(steps=6, batch_size=16, checks=2, **small, **settings)
    game, model = AdvGanGame(config, THREAT, DATA.shape, None, CPU), classifier("mlp", hidden=(8,)).eval()
    return GeneratorTraining(game, WhiteBox(model), model, DATA, DATA.limit(10))


def of_change(kind: Patch | Perturbation) -> ChangeTraining:
    config = ChangeSettings(steps=43, batch_size=7, seed=5)
    return ChangeTraining(kind, [classifier("mlp", hidden=(8,)).eval()], DATA, config, 1, float("inf"))


MLP = {"arch": "mlp-gan", "generator": {"hidden": (16,)}, "discriminator": {"hidden": (16,)}}
CONV = {"arch": "conv-gan", "generator": {"channels": (8, 8, 8)}, "discriminator": {"channels": (4, 4)}}
VAE = {"decoder_config": {"channels": (16, 8, 8)}, "channels": (8, 8), "hidden": 16}
TRAININGS: dict[str, Any] = {
    "classifier": lambda: of_classifier("pgd", {"steps": 2}, rate=0.01, ema=0.9),
    "classifier, sgd": lambda: of_classifier("pgd", {"steps": 2}, rate=0.01, ema=0, optimiser="sgd"),
    "classifier, free": lambda: of_classifier("free", {"replays": 3}),
    "gan": lambda: of_gan(**MLP, augment=["shift"], augment_target=0.6, packing=2, schedule="cosine"),
    "gan, several": lambda: of_gan(**MLP, loss="dual-discriminator", discriminator_steps=2, spectral=True),
    "gan, conv": lambda: of_gan(**CONV, loss="wasserstein"),
    "vae": lambda: of_gan(kind="vae", arch="conv-vae", generator=VAE),
    "few labels": lambda: of_semi(teach=1.0, sure=0.15),
    "few labels, conv": lambda: of_semi(**CONV),
    "generator": lambda: of_generator(),
    "generator alone": lambda: of_generator(gan_weight=0, ema=0),
    "patch": lambda: of_change(Patch(PatchSettings(target=1), DATA.shape)),
    "perturbation": lambda: of_change(Perturbation(Threat("l2", 1.0), DATA.shape, 0.1)),
}


class Interrupted(Progress, Task):
    """By Ctrl-C, as it were, after so many looks."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def task(self, *args: Any, **more: Any) -> Task:
        return self

    def advance(self, n: int = 1, **facts: float | str) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def tensors(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor in nested dictionaries and lists, by its place."""
    if isinstance(state, Tensor):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {
        name: tensor for key, value in items for name, tensor in tensors(value, f"{prefix}.{key}").items()
    }


def run(training: Training, path: Path, progress: Progress | None = None) -> list[dict[str, Any]]:
    with RunFolder.open("test", "toy", StrictModel(), path) as folder:
        loop.repeat(training, run=folder, progress=progress or Progress())
        return [{key: row[key] for key in row if key != "images_per_second"} for row in folder.history()]


@pytest.mark.parametrize("name", TRAININGS)
def test_an_interrupted_training_ends_with_the_same_bits(name, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)
    monkeypatch.setattr("advkit.gan.sample_logger.WATCHED", 120)
    torch.manual_seed(11)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    whole = TRAININGS[name]()
    rows = run(whole, tmp_path / "whole")
    assert torch.equal(torch.get_rng_state(), before[0])  # nor has the global state an influence
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    torch.manual_seed(12)
    monkeypatch.setattr(loop, "LOOK_EVERY", 0.0)  # a state after every step
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    cut = tmp_path / "cut"
    for looks in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(TRAININGS[name](), cut, Interrupted(looks))
    assert torch.load(cut / "state.pt", weights_only=True)["step"] == 5
    resumed = TRAININGS[name]()
    assert run(resumed, cut) == rows and (resumed.step, len(rows) > 1) == (whole.steps, True)
    mine, theirs = tensors(resumed.state()), tensors(whole.state())
    assert mine.keys() == theirs.keys() and len(mine) > 1
    assert [at for at in mine if not torch.equal(mine[at], theirs[at])] == []
