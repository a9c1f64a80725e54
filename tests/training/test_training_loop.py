import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from advkit.attacks.perturb import robust_correct
from advkit.core.errors import ConfigError
from advkit.core.progress import Progress
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.data.augment import Order
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.training import trainer as trainers
from advkit.training.loop import fit
from advkit.training.objective import Batch
from advkit.training.settings import Fitting
from advkit.training.trainer import Trainer

THREAT = Threat("linf", 0.1)
DROPOUT = {"trunk": "conv-gan-discriminator", "trunk_config": {"channels": [4, 4]}}
CONFIG = Fitting(epochs=4, batch_size=24, checks=4, shift=1, seed=5)
"""16 updates on the 80 images that are not held out, a check every 4."""


def opened(path, config=CONFIG):
    return RunFolder.open("test", "toy", config, path)


def hardened(make, digits, objective, path=None, *, progress=None, config=CONFIG, seed=0):
    """A training with everything in it that could spoil a resume: dropout, shifts, attacks, EMA, a best."""
    model = make("trunk-classifier", seed, **DROPOUT)
    rest, held = digits.holdout(0.2)
    given = {"objective": objective("pgd", steps=2), "threat": THREAT, "progress": progress or Progress()}
    if path is None:
        return fit(model, config, rest, held, **given)
    with opened(path, config) as run:
        return fit(model, config, rest, held, run=run, **given)


def test_a_run_that_began_from_another_model_is_not_continued(make, digits, objective, interrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        hardened(make, digits, objective, tmp_path / "cut", progress=interrupted(2))
    with pytest.raises(ConfigError, match="did not begin with the same model;"):
        hardened(make, digits, objective, tmp_path / "cut", seed=1)


def test_global_random_state_is_untouched(make, digits, objective):
    torch.manual_seed(11)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = hardened(make, digits, objective)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    torch.manual_seed(12)
    assert hardened(make, digits, objective).history == first.history


def test_every_update_draws_other_numbers(make, digits, objective, monkeypatch):
    steps, drawn = [], []

    class Drawing(type(objective("standard"))):
        def loss(self, model, x, y, batch):
            steps.append(batch.step)
            drawn.append(torch.rand(()).item())
            return super().loss(model, x, y, batch)

    def spy(images, ids, step, seed, **rest):
        steps.append(step)
        return images

    monkeypatch.setattr(trainers, "shift_and_flip", spy)
    wanted = Drawing(objective("standard").config)
    trainer = Trainer(make(), CONFIG, digits, wanted, (), torch.device("cpu"), {})
    for _ in range(3):
        trainer.update()
    assert steps == [0, 0, 1, 1, 2, 2] and len(set(drawn)) == 3


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_updates_are_those_of_the_optimiser(name, make, digits, objective):
    """On one-cycle's rate; decay for weights alone, another rate for the last layer; and their average."""
    config = Fitting(batch_size=20, epochs=2, optimiser=name, rate=0.05, weight_decay=0.2, ema=0.15, seed=3)
    rates = {"network.layers.3": 0.5, "network.layers": 2.0, "network": 9.0}  # the first that fits counts
    trainer = Trainer(make(), config, digits, objective("standard"), (), torch.device("cpu"), rates)
    mine, kind = make(), {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    last = [p for key, p in mine.named_parameters() if ".3." in key]
    first = [p for key, p in mine.named_parameters() if ".3." not in key]
    assert len(first) == len(last) == 2
    more = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    ways = [(rate, p, 0.2 * (p.dim() > 1)) for rate, part in ((2.0, first), (0.5, last)) for p in part]
    steps = [(rate, kind([p], 1.0, weight_decay=decay, **more)) for rate, p, decay in ways]
    average = [p.detach().clone() for p in mine.parameters()]
    for step in range(4):
        trainer.update()
        x, y = digits.batch(Order(100, 20, 3).batch(step))
        share = 0.04 + 0.96 * (1 - math.cos(math.pi * step / 3)) / 2 if step < 3 else 1.0
        mine.zero_grad()
        cross_entropy(mine(x), y).backward()
        for rate, optimiser in steps:
            optimiser.param_groups[0]["lr"] = 0.05 * rate * share
            optimiser.step()
        decay = min(0.15, (1 + step) / (10 + step))
        for mean, p in zip(average, mine.parameters(), strict=True):
            mean.mul_(decay).add_(p.detach(), alpha=1 - decay)
    for found, wanted in (
        (trainer.model.parameters(), mine.parameters()),
        (trainer.candidate.parameters(), average),
    ):
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def copy_of(model, make):
    copied = make()
    copied.load_state_dict(model.state_dict())
    return copied


@pytest.fixture
def scripted(make, monkeypatch):
    """Scores on held-out images (robust, clean), check by check; the models that were checked."""
    seen = []

    def script(*rows):
        def scores(model, data, threats, seed):
            robust, clean = rows[len(seen)]
            seen.append(copy_of(model, make))
            return {"clean": clean, "robust": robust}

        monkeypatch.setattr(trainers, "scores", scores)
        return seen

    return script


def test_the_best_check_is_kept_and_of_equals_the_later(make, digits, objective, same, scripted):
    rest, held = digits.holdout(0.2)
    seen = scripted((0.5, 0.9), (0.6, 0.7), (0.6, 0.8), (0.6, 0.8), (0.4, 1.0))
    config = Fitting(epochs=5, checks=5, batch_size=40)
    trained = fit(make(), config, rest, held, objective=objective("standard"))
    assert trained.step == 8 and trained.scores == {"clean": 0.8, "robust": 0.6}
    assert same(trained.best, seen[3]) and same(trained.model, seen[4])
    assert not same(trained.best, trained.model)


def test_patience(make, digits, objective, scripted, same, tmp_path, interrupted):
    script = [(0.0, 0.2), (0.0, 0.5), (0.0, 0.4), (0.0, 0.5), (0.0, 0.3), (0.0, 0.9)]
    rest, held = digits.holdout(0.2)
    config = Fitting(epochs=6, checks=6, batch_size=40)
    given = {"objective": objective("standard"), "patience": 3}
    seen = scripted(*script)
    whole = fit(make(), config, rest, held, **given)
    assert len(seen) == 5 and whole.step == 8  # the later of the two equals is kept, but is no better
    seen.clear()
    with opened(tmp_path / "run", config) as run, pytest.raises(KeyboardInterrupt):
        fit(make(), config, rest, held, run=run, progress=interrupted(4), **given)
    del seen[3:]  # what was not saved is done again
    with opened(tmp_path / "run", config) as run:
        resumed = fit(make(), config, rest, held, run=run, **given)
    assert len(seen) == 5 and same(whole.best, resumed.best) and same(whole.model, resumed.model)
    with opened(tmp_path / "run", config) as run:  # and it stays where it stopped
        assert fit(make(), config, rest, held, run=run, **given).history == whole.history


def test_scores_are_those_of_the_held_out_images(make, digits, objective):
    rest, held = digits.holdout(0.3)
    config = Fitting(epochs=2, checks=1)
    trained = fit(make(), config, rest, held, objective=objective("standard"), threat=THREAT)
    clean, robust = robust_correct(trained.best, held, THREAT, parameters={"steps": 10}, seed=0)
    assert trained.scores == {
        "clean": pytest.approx(clean.float().mean().item()),
        "robust": pytest.approx(robust.float().mean().item()),
    }
    seen = rest.limit(len(held))
    _, robust = robust_correct(trained.best, seen, THREAT, parameters={"steps": 10}, seed=0)
    assert trained.history[-1]["train_robust"] == pytest.approx(robust.float().mean().item())
    clean_only = fit(make(), config, rest, held, objective=objective("standard"))
    assert clean_only.scores.keys() == {"clean"}


def test_an_objective_may_judge_its_checkpoints_by_itself(make, digits, objective):
    rest, held = digits.holdout(0.3)
    wanted, config = objective("noise", sigma=0.5), Fitting(epochs=6, checks=3, rate=0.02, ema=0)
    trained = fit(make(), config, rest, held, objective=wanted, threat=THREAT)
    best = max(trained.history, key=lambda row: (row["noisy"], row["clean"], row["step"]))
    assert trained.step == best["step"] and trained.scores == {k: best[k] for k in ("clean", "noisy")}
    x, y = held.batch(torch.arange(len(held)))
    shares = wanted.measure(trained.best, x, y, Batch(held.ids, 0, 1, config.seed))
    assert trained.scores["noisy"] == pytest.approx(shares.mean().item())
    assert torch.equal(
        shares[5:8], wanted.measure(trained.best, x[5:8], y[5:8], Batch(held.ids[5:8], 0, 1, config.seed))
    )
    assert trained.scores["noisy"] < trained.scores["clean"] and "train_noisy" in best


def test_what_training_leaves_can_be_trained_again(make, digits, objective, same):
    trained = fit(make(), Fitting(epochs=1), digits, objective=objective("standard"))
    assert same(trained.best, trained.model) and trained.scores == {} and trained.step == 2
    assert not trained.best.training
    assert all(p.requires_grad and p.grad is None for p in trained.best.parameters())


def test_frozen_parts_stay_as_they_are(digits, objective):
    trunk = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    card = ModelCard(role="classifier", architecture="mlp", shape=(1, 8, 8), classes=10)
    model = Model(nn.Sequential(trunk, nn.Linear(144, 10)), card)
    trunk.requires_grad_(False)
    before = {key: value.clone() for key, value in trunk.state_dict().items()}
    trained = fit(model, Fitting(epochs=2), digits, objective=objective("standard"))
    for network in (model.network, trained.model.network):
        assert all(torch.equal(value, before[key]) for key, value in network[0].state_dict().items())
    assert not trunk.training and model.network[1].training


def test_fewer_images_than_a_batch(make, digits, objective):
    few = digits.limit(10)
    config = Fitting(epochs=3, batch_size=64, checks=1)
    trained = fit(make(), config, few, objective=objective("standard"))
    assert trained.step == 3 and trained.history[-1]["epoch"] == 3


@pytest.mark.parametrize(
    ("n", "epochs", "expected"), [(1294, None, 48 * 21), (54000, None, 10 * 844), (100, 3, 6)]
)
def test_how_many_updates(n, epochs, expected):
    assert Fitting(epochs=epochs).updates(n) == expected


def test_bfloat16_computes_otherwise_and_keeps_its_weights(make, digits, objective):
    found = []
    for precision in ("float32", "bfloat16"):
        config = Fitting(epochs=6, batch_size=25, checks=2, precision=precision)
        trained = fit(make("small-cnn"), config, digits, objective=objective("pgd", steps=2), threat=THREAT)
        assert {value.dtype for value in trained.model.parameters()} == {torch.float32}
        found.append([row["loss"] for row in trained.history])
    assert found[0] != found[1] and found[0] == pytest.approx(found[1], rel=0.05)
    assert found[1][1] < found[1][0]


def test_free_training_sees_a_batch_several_times(make, digits, objective):
    trainer = Trainer(make(), CONFIG, digits, objective("free", replays=3), [THREAT], torch.device("cpu"), {})
    seen, images = [], trainer._batch
    trainer._batch = lambda number: seen.append(images(number)) or seen[-1]
    for _ in range(6):
        trainer.update()
    batches = [x for x, _, _ in seen]
    assert all(torch.equal(batches[0], x) for x in batches[1:3])
    assert all(torch.equal(batches[3], x) for x in batches[4:6])
    assert not torch.equal(batches[0], batches[3])


def test_nothing_to_train_is_an_error(make, digits, objective):
    with pytest.raises(ConfigError, match="all of them are frozen"):
        fit(make().requires_grad_(False), Fitting(), digits, objective=objective("standard"))
