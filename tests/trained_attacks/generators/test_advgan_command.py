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
from advkit.report.figures.curves import write_advgan_curves as write_curves
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
    assert all(picture.path.read_bytes()[:4] == b"\x89PNG" for picture in outcome.pictures)
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


def test_curves_show_percentages(plotted, tmp_path):
    rows = [{"step": at, "held_out": at / 10, "misled": at / 5, "d_accuracy": 0.5} for at in (1, 2)]
    for judged in (False, True):
        write_curves(tmp_path / "a.png", rows, title="toy", judged=judged)
    assert [len(figure.axes[0].lines) for figure in plotted] == [2, 3]
    assert list(plotted[0].axes[0].lines[0].get_ydata()) == [10, 20]
    assert plotted[0].axes[0].get_ylim() == (0, 101)


def test_a_dry_run_makes_nothing():
    told = advgan_train(TOY, replace(Context(), dry_run=True)).result
    assert told["backwards"] == 12 * 16
    for wrong in ({"target": "x"}, {"opponent": "conv-gn"}):
        with pytest.raises(ConfigError):
            advgan_train(TOY.model_copy(update=wrong), replace(Context(), dry_run=True))
    assert not Path("runs").exists() and not Path("home").exists()
