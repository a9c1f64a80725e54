"""S15 and S17: detectors and proofs."""

from __future__ import annotations

import pytest

import advkit
from advkit.models.checkpoint import load_checkpoint


def test_s15_detector(shell, classifier):
    """S15: a discriminator of clean and adversarial images, judged by the attack that knows of it, too."""
    own = "--detector-arch mlp --set architecture.hidden=[8] --epochs 5 --checks 1 --n 200 --eps 0.2"
    told = shell(
        f"advkit detector-train --model {classifier} --attack fgsm {own} --name detector --out det.pt"
    )
    run = advkit.detector_train(
        model=classifier,
        attack=["fgsm"],
        detector_arch="mlp",
        architecture={"hidden": [8]},
        epochs=5,
        checks=1,
        n=200,
        eps=0.2,
        name="detector",
        progress=False,
    )
    detector = load_checkpoint("det.pt")
    assert detector.hash == told["model"]["hash"] == run.model.hash
    assert detector.card.role == "detector" and len(told["learnt"]) == 2
    words = f"--model {classifier} --detector det.pt --n 10 --held 100 --eps 0.2 --attack pgd"
    told = shell(f"advkit detector-eval {words} --set parameters.pgd.steps=5 --out judged")
    run = advkit.detector_eval(
        model=classifier,
        detector="detector",
        n=10,
        held=100,
        eps=0.2,
        attack=["pgd"],
        parameters={"pgd": {"steps": 5}},
        progress=False,
    )
    assert told["points"] == run.figures["points"] and told["detector_hash"] == detector.hash
    for point in told["points"]:
        assert point["adaptive"] <= point["passed"] <= told["clean_correct"] <= told["n"] == 10
        assert point["adaptive"] <= point["unaware"] and point["stages"]


def test_s17_certified_robustness(shell, classifier):
    """S17: proofs by interval and linear bounds, and randomised smoothing."""
    told = shell(f"advkit certify --model {classifier} --n 20 --norm linf --eps 0.01 --out proofs")
    result = advkit.certify(classifier, "digits", advkit.Threat("linf", 0.01), n=20)
    assert (told["clean_correct"], told["certified_correct"]) == (
        result.clean_correct,
        result.certified_correct,
    )
    assert 0 < told["certified_correct"] <= told["clean_correct"]
    assert told["methods"][0]["name"] == "interval"
    found = advkit.evaluate(classifier, "digits", advkit.Threat("linf", 0.01), "pgd", n=20)
    assert told["certified_correct"] <= found.robust_correct  # no attack finds what was proved away

    told = shell(f"advkit smooth --model {classifier} --sigma 0.1 --n 4 --samples 200 --out smoothed")
    assert told["right"] + told["wrong"] + told["abstained"] == told["n"] == 4
    smoothed = advkit.smooth(classifier, 0.1, samples=200)
    x, _ = advkit.load_data("digits", "test").batch(slice(4))
    answers = smoothed.certify(x) if hasattr(smoothed, "certify") else smoothed(x)
    assert len(answers) == 4
    assert told["average_radius"] == pytest.approx(
        sum(one["radius"] for one in told["verdicts"] if one["status"] == "right") / 4
    )
