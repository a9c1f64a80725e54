"""S19 and S20: testing one's own model, and reverse engineering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import advkit
from advkit.evaluation.result import EvaluationResult


def test_s19_my_own_model(shell):
    """S19: a person brings a trained classifier and asks whether it is robust: one command, one report."""
    train = advkit.load_data("digits", "train")
    x, y = train.batch(slice(None))
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimiser = torch.optim.Adam(mine.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(mine(x), y).backward()
        optimiser.step()
    mine.eval()
    Path("mine.py").write_text(
        "from torch import nn\n\ndef network():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n",
        encoding="utf-8",
    )
    torch.save(mine.state_dict(), "mine.pt")
    words = "--model mine:network --weights mine.pt --data digits --n 40 --norm linf --eps 0.15"
    told = shell(f"advkit attack {words} --attack pgd --min-robust 0.99 --out answer", code=1)
    result = advkit.evaluate(mine, "digits", advkit.Threat("linf", 0.15), "pgd", n=40)
    assert (told["clean_correct"], told["robust_correct"]) == (result.clean_correct, result.robust_correct)
    assert told["robust_accuracy"] < told["clean_accuracy"] and told["clean_correct"] > 30
    low, high = told["interval"]
    assert low <= told["robust_accuracy"] <= high
    assert {check["verdict"] for check in told["checks"]} <= {"ok", "doubt"} and told["checks"]
    assert "data:image/png;base64," in Path("answer/report.html").read_text(
        encoding="utf-8"
    )  # pictures are inside
    assert EvaluationResult.load("answer").robust_correct == result.robust_correct


def test_s20_reverse_engineering(shell, classifier, gan):
    """S20: from an image to its latent vector, and from a classifier's answers to a copy of it."""
    told = shell(f"advkit gan-invert --model {gan}-ema --n 3 --steps 20 --restarts 1 --out inverted")
    run = advkit.gan_invert(model=f"{gan}-ema", n=3, steps=20, restarts=1, progress=False)
    assert told["images"] == run.figures["images"] and len(told["images"]) == 3
    with np.load("inverted/latents.npz") as arrays:
        assert any(arrays[key].shape == (3, 16) for key in arrays)

    copy = f"--generator {gan}-ema --queries 100 --copy-arch mlp --set architecture.hidden=[16] --name copy"
    told = shell(f"advkit substitute --model {classifier} {copy} --epochs 60 --ema 0.9 --checks 1 --out copy")
    run = advkit.substitute(
        model=classifier,
        generator=f"{gan}-ema",
        queries=100,
        copy_arch="mlp",
        architecture={"hidden": [16]},
        name="copy",
        epochs=60,
        ema=0.9,
        checks=1,
        progress=False,
    )
    assert told["model"]["hash"] == run.figures["model"]["hash"] == run.model.hash
    assert sum(told["asked"].values()) <= 100 and len(told["asked"]) == 2  # real and generated images
    assert told["agreement"] == told["agreed"] / told["n"] and told["agreement"] > 0.3
    words = f"--model {classifier} --surrogate copy --attack pgd --n 20 --norm linf --eps 0.2"
    transferred = shell(f"advkit attack {words} --out transferred")
    assert transferred["stages"][0]["transferred"] and transferred["surrogate_hash"] == told["model"]["hash"]
    assert transferred["robust_correct"] <= transferred["clean_correct"]
