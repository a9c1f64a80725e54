"""Ordinary training: judged by clean accuracy, with or without a threat model to measure against."""

import json

import numpy as np
import pytest
import torch

import advkit
from advkit.core import rng
from advkit.models.load import load_model

SHORT = {"arch": "mlp", "architecture": {"hidden": [16]}, "epochs": 12, "checks": 6, "progress": False}


@pytest.mark.parametrize("command", ["train", "adv_train"])
def test_the_checkpoint_with_the_best_clean_accuracy_is_kept(command):
    objective = {"objective": "standard"} if command == "adv_train" else {}
    run = getattr(advkit, command)(data="digits", **SHORT, **objective)
    rows = run.history
    assert len(rows) == 6 and not any("robust" in key for row in rows for key in row)
    best = max(rows, key=lambda row: row["clean"])
    assert run.figures["kept_step"] in [row["step"] for row in rows if row["clean"] == best["clean"]]
    assert run.figures["warnings"] == [] and run.model.card.threat is None
    assert run.model.card.training["command"] == command.replace("_", "-")
    after = run.figures["test"]["after"]
    assert after["clean"] > 0.8 * after["n"] > 0.6 * after["n"] > after["robust"]  # PGD is a measure only


def test_data_without_a_threat_model_are_not_attacked():
    images = (255 * rng.uniform(torch.arange(40), (6, 6))).to(torch.uint8).numpy()
    labels = (images.mean((1, 2)) > np.median(images.mean((1, 2)))).astype(int)
    np.savez("toy.npz", x=images, y=labels)
    run = advkit.train(data="npz:toy.npz", **SHORT | {"epochs": 2})
    assert run.figures["test"]["after"]["robust"] is None
    assert json.loads((run.folder / "result.json").read_text())["config"]["eps"] is None
    assert load_model(run.folder).hash == run.model.hash
