"""``advkit advgan-train`` from its configuration to what it leaves."""

from dataclasses import replace
from pathlib import Path

import pytest

from advkit.commands.advgan_train import run as advgan_train
from advkit.commands.attack import run as attack
from advkit.core.context import Context
from advkit.core.errors import ConfigError, OutputError
from advkit.evaluation.settings import Evaluation
from advkit.models.checkpoint import save_model
from advkit.models.load import load_model
from advkit.trained_attacks.generators.result import AdvGanResult
from advkit.trained_attacks.generators.settings import AdvGanTraining


@pytest.fixture(autouse=True)
def here(own_places, model, images, save_npz):
    """A folder with the classifier as clf.pt and its images as toy.npz."""
    save_model(model, "clf.pt")
    save_npz(images(), images(40, 1))


TOY = AdvGanTraining(
    model="clf.pt",
    data="npz:toy.npz",
    norm="linf",
    eps=0.1,
    steps=12,
    rate=2e-2,
    batch_size=16,
    checks=2,
    name="toy-advgan",
    generator={"width": 4, "depth": 1},
    discriminator={"channels": (4, 8)},
)


def test_it_leaves_an_attack_that_does_what_was_said(model):
    outcome = advgan_train(TOY, Context(out=Path("gen.pt")))
    result = AdvGanResult.load(outcome.files[-1])
    assert result.as_values() == outcome.result and outcome.files[0] == Path("gen.pt")
    starts = [picture.path.read_bytes()[:5] for picture in outcome.pictures]
    assert starts == [b"\x89PNG\r", b"<?xml"]
    card = load_model("toy-advgan", role="perturbation-generator").card
    (parent,) = card.lineage
    assert (parent.relation, parent.hash) == ("trained-against", model.hash)
    assert (card.threat.norm, card.threat.eps, card.metrics["success_rate"]) == ("linf", 0.1, result.rate)
    assert outcome.next[0] == (
        "advkit attack --model=clf.pt --data=npz:toy.npz --norm linf --eps 0.1 --attack advgan:toy-advgan"
    )
    said = {"model": "clf.pt", "data": "npz:toy.npz", "norm": "linf", "eps": 0.1}
    judged = attack(Evaluation(**said, attack=("advgan:gen.pt",)), Context(out=Path("judged"))).result
    assert judged["stages"][0]["broken"] == result.hits
    assert judged["clean_correct"] - judged["robust_correct"] == result.hits
    with pytest.raises(OutputError):
        advgan_train(TOY, Context(out=Path("gen.pt")))


def test_a_dry_run_makes_nothing():
    told = advgan_train(TOY, replace(Context(), dry_run=True)).result
    assert told["backwards"] == 12 * 16
    for wrong in ({"target": "x"}, {"opponent": "conv-gn"}):
        with pytest.raises(ConfigError):
            advgan_train(TOY.model_copy(update=wrong), replace(Context(), dry_run=True))
    assert not Path("runs").exists() and not Path("home").exists()
