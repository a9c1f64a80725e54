"""Questions to a black box, and the copy that is made of the answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from advkit.commands.attack import run as attack
from advkit.commands.substitute import run as substitute
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError
from advkit.evaluation.settings import Evaluation
from advkit.models.checkpoint import save_model
from advkit.models.load import load_model
from advkit.trained_attacks.transfer.copied import gather
from advkit.trained_attacks.transfer.queries import ORIGINS, BlackBox, Queries, augmented
from advkit.trained_attacks.transfer.result import SubstituteResult
from advkit.trained_attacks.transfer.settings import SubstituteTraining

TOY = SubstituteTraining(
    model="clf.pt",
    data="npz:toy.npz",
    queries=200,
    copy_arch="mlp",
    architecture={"hidden": ()},
    epochs=20,
    rate=0.02,
    checks=4,
    name="toy-copy",
)


class Counting(nn.Module):
    """Notes every image that it is shown, copies that fill up a pass left out."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x)
        return self.model(x)


def told(**changes):
    return TOY.model_copy(update=changes)


@pytest.fixture
def model(thirds):
    return thirds[0]


@pytest.fixture
def images(thirds):
    return thirds[1](300, 1, "train"), thirds[1](100, 2, "test")


@pytest.fixture
def here(model, images, save_npz):
    """A folder with the classifier as clf.pt and the images as toy.npz."""
    save_model(model, "clf.pt")
    save_npz(*images)


def test_a_black_box_counts_and_refuses(model, images):
    train, _ = images
    for answers in ("labels", "probabilities"):
        box = BlackBox(model.train(), answers, 50)
        said = box.query(train.images[:30])
        assert said.shape == (30, 3) and torch.equal(said.argmax(1), train.labels[:30])
        torch.testing.assert_close(said.sum(1), torch.ones(30))
        assert (said.unique().tolist() == [0, 1]) == (answers == "labels")
        assert (box.asked, box.left) == (30, 20) and model.training
        with pytest.raises(ConfigError):
            box.query(train.images[:30])
        assert box.asked == 30


def test_labels_are_not_looked_at_and_the_limit_holds(model, images):
    train, _ = images
    counting = Counting(model)
    blank = replace(train, labels=torch.zeros_like(train.labels))
    queries = gather(BlackBox(counting, "labels", 120), blank, told(), None)
    assert len(queries) == 120 == sum(map(len, counting.seen))
    assert len(set(queries.answers.argmax(1).tolist())) == 3
    few = gather(BlackBox(model, "labels", 1000), train, told(), None)
    assert few.counts() == {"real": 300, "generated": 0, "augmented": 0, "adversarial": 0}  # all there are


def test_jacobian_augmentation_doubles_up_to_the_limit(model, images):
    train, _ = images
    counting = Counting(model)
    config = told(jacobian=2, epochs=2)
    queries = gather(BlackBox(counting, "labels", 100), train, config, None)
    assert queries.counts() == {"real": 25, "generated": 0, "augmented": 75, "adversarial": 0}
    assert sum(len(seen) for seen in counting.seen) == 100
    small = Queries(queries.images[:25], queries.answers[:25], queries.origin[:25])
    new = augmented(model, small, 10, 0.1)
    change = (new.float() - small.images.flip(0)[:10].float()).abs() / 255
    assert new.shape == (10, 1, 8, 8) and 0.09 < change.max() < 0.11


def test_what_a_generator_makes_is_asked_about_too(model, images):
    train, _ = images

    def generated(n):
        return torch.full((n, 1, 8, 8), 7, dtype=torch.uint8)

    queries = gather(BlackBox(model, "labels", 40), train, told(generated_fraction=0.25), generated)
    assert queries.counts()["generated"] == 10 and queries.counts()["real"] == 30
    assert (queries.images[queries.origin == ORIGINS.index("generated")] == 7).all()
    none = gather(BlackBox(model, "labels", 40), train, told(generated_fraction=1), generated)
    assert none.counts()["real"] == 0


@pytest.mark.usefixtures("here")
def test_a_copy_agrees_and_its_weaknesses_are_the_originals(model):
    config = told(answers="probabilities", queries=300, epochs=60)
    outcome = substitute(config, Context(out=Path("copy.pt")))
    result = SubstituteResult.load(outcome.files[-1])
    assert result.as_values() == outcome.result
    assert result.asked == {"real": 300} and result.limit == 300 and result.n == 100
    assert result.agreement >= 0.85 and result.agreed == result.copy_correct  # the labels are the original's
    card = load_model("toy-copy", role="classifier").card
    (parent,) = card.lineage
    assert (parent.relation, parent.hash) == ("distilled-from", model.hash)
    assert outcome.next[0] == (
        "advkit attack --model=clf.pt --data=npz:toy.npz --surrogate copy.pt --attack pgd"
    )
    said = {"model": "clf.pt", "data": "npz:toy.npz", "norm": "linf", "eps": 0.1}
    plan = Evaluation(**said, surrogate="copy.pt", attack=("noise", "pgd"))
    transfer = attack(plan, Context(out=Path("t"))).result
    noise, pgd = transfer["stages"]
    assert (noise["transferred"], pgd["transferred"]) == (False, True)
    assert pgd["broken"] > 0.8 * pgd["attacked"] > noise["broken"]
    assert transfer["surrogate_hash"] == result.model.hash


@pytest.mark.usefixtures("here")
def test_a_resumed_run_asks_nothing_twice_and_ends_with_the_same_weights(stopping, monkeypatch):
    config = told(jacobian=1, epochs=2)
    whole = substitute(config, Context(out=Path("whole")))
    with pytest.raises(KeyboardInterrupt):
        substitute(config, Context(out=Path("run"), progress=stopping))
    kept = len(np.load("run/queries.npz")["images"])
    assert kept in (100, 200)
    asked = []
    original = BlackBox.query
    monkeypatch.setattr(BlackBox, "query", lambda box, x: asked.append(len(x)) or original(box, x))
    again = substitute(config, Context(out=Path("run")))
    assert sum(asked) == 200 - kept
    assert again.result["model"]["hash"] == whole.result["model"]["hash"]
    assert again.result["asked"] == {"real": 100, "augmented": 100}


@pytest.mark.usefixtures("here")
def test_faults_are_told_before_the_work_begins(built):
    save_model(built("mlp-gan-generator", "generator", shape=(1, 9, 9), hidden=(4,)), "gen.pt")
    for wrong, fault in (
        ({"copy_arch": "conv-gan-generator"}, ConfigError),
        ({"extra_data": "digits"}, ConfigError),
        ({"generator": "gen.pt"}, DataError),
    ):
        with pytest.raises(fault):
            substitute(told(**wrong), Context())
    with pytest.raises(ValueError):
        SubstituteTraining(model="clf.pt", jacobian_step=0.2)
    assert substitute(TOY, replace(Context(), dry_run=True)).result["real"] == 200
    assert not Path("runs").exists()
