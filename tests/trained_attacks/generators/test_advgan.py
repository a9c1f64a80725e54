"""The training of a perturbation generator, and what it does."""

import itertools
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch

from advkit.attacks.advgan import moved
from advkit.attacks.perturb import logits_of
from advkit.core import rng
from advkit.core.errors import ConfigError, DataError
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.gan.critic import Critic
from advkit.models.model import weights_hash
from advkit.trained_attacks.generators.distilled import Distilled
from advkit.trained_attacks.generators.game import AdvGanGame
from advkit.trained_attacks.generators.judge import attackable, generate, hits, noise
from advkit.trained_attacks.generators.make import make_generator
from advkit.trained_attacks.generators.settings import AdvGanSettings
from advkit.trained_attacks.transfer.queries import BlackBox
from advkit.trained_attacks.transfer.settings import SubstituteTraining

SMALL = {"generator": {"width": 4, "depth": 1}, "discriminator": {"channels": (4, 8)}, "rate": 1e-2}
LINF = Threat("linf", 0.1)


def settings(**said):
    return AdvGanSettings(**{"steps": 25, "batch_size": 16, "checks": 4, **SMALL, **said})


@pytest.mark.parametrize("threat", [LINF, Threat("l2", 0.9)], ids=str)
def test_a_generator_misleads_where_random_changes_do_not(threat, model, images):
    found = make_generator(model, images(), images(40, 1, "test"), threat, None, settings())
    figures = found.figures
    assert (figures["n"], figures["clean_correct"], figures["judged"]) == (40, 36, 36)  # 4 labels are wrong
    assert figures["rate"] >= 0.9
    assert figures["hits_by_noise"] <= 4
    assert sum(figures["becomes"].values()) == figures["hits"]
    test = attackable(model, images(40, 1, "test"), None)
    with mock.patch("time.perf_counter", itertools.count(8, 0.5).__next__):
        x, rate = generate(found.generator, test, threat, torch.device("cpu"))
    assert rate == len(test) / 0.5  # images a second
    assert threat.contains(x, test.images).all()
    assert int(hits(model, x, test, threat, None)[0].sum()) == figures["hits"]


@pytest.mark.parametrize("target", [None, 0, 1])
def test_what_is_attacked_is_right_and_of_another_class_than_the_target(target, model, images):
    data = images(40, 1, "test")
    predicted = logits_of(model, data).argmax(1).tolist()
    wanted = [k for k, own in enumerate(data.labels.tolist()) if predicted[k] == own != target]
    assert attackable(model, data, target).ids.tolist() == data.ids[wanted].tolist()


def test_the_classifier_stays_as_it_is(model, images):
    model.train()
    model.network.eval()
    before, modes = weights_hash(model.state_dict()), [module.training for module in model.modules()]
    make_generator(model, images(), images(20, 1, "test"), LINF, None, settings(steps=3))
    assert weights_hash(model.state_dict()) == before
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def guessing():
    """A linear classifier of random weights, undecided about grey."""
    linear = torch.nn.Linear(64, 3)
    linear.weight.data = rng.normal(torch.arange(3), (64,))
    linear.bias.data = -0.5 * linear.weight.data.sum(1)
    return torch.nn.Sequential(torch.nn.Flatten(), linear)


@pytest.mark.parametrize("target", [None, 2])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_an_update_is_that_of_the_formulas(weight, target, images):
    """Figures and gradients of both players on a classifier of random weights, beside plain computations."""
    config, shape, found = settings(gan_weight=weight, kappa=0.1, rate=2e-3), (1, 8, 8), {}
    game, other = (AdvGanGame(config, LINF, shape, target, torch.device("cpu")) for _ in range(2))
    victim = guessing()
    x, label = images().batch(torch.arange(20))
    for name, network in game.networks.items():
        step = game.optimisers[name].step

        def noted(name=name, network=network, step=step):
            found[name] = [p.grad.clone() for p in network.parameters()]
            step()

        game.optimisers[name].step = noted
    told = game.train_step(victim, x, label).tolist()
    with rng.scope("cpu", config.seed, "update", 0):
        fake = moved(LINF, x, other.generator(x))
        wanted, deception, d_loss, right = {}, torch.zeros(()), 0.0, 0.0
        if weight:
            judge = other.networks["discriminator"]
            real, made_up = Critic(judge).both(x, fake.detach())
            loss = ((real - 1).square().mean() + (made_up + 1).square().mean()) / 2
            wanted["discriminator"] = torch.autograd.grad(loss, list(judge.parameters()))
            d_loss, right = loss.item(), torch.cat([real > 0, made_up <= 0]).float().mean().item()
            adam = torch.optim.Adam(judge.parameters(), 2e-3, (0.5, 0.999))
            for p, grad in zip(judge.parameters(), wanted["discriminator"], strict=True):
                p.grad = grad
            adam.step()
            deception = (judge(fake) - 1).square().mean() / 2
    logits = victim(fake)
    aim = label if target is None else torch.full_like(label, target)
    own = logits.gather(1, aim[:, None])[:, 0]
    others = logits.scatter(1, aim[:, None], -torch.inf).amax(1)
    lead = others - own if target is None else own - others
    loss = (-lead).clamp(min=-0.1).mean()
    total = loss + weight * deception
    wanted["generator"] = torch.autograd.grad(total, list(other.generator.parameters()))
    figures = [loss.item(), deception.item(), d_loss, right, (lead > 0).float().mean().item()]
    assert told == pytest.approx(figures, rel=1e-3, abs=1e-5) and (lead > 0.1).any()
    for name, grads in wanted.items():
        for mine, theirs in zip(found[name], grads, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-5)


def test_rates_fall_along_half_a_cosine_and_the_average_is_kept(images):
    game = AdvGanGame(settings(steps=4, ema=0.05), LINF, (1, 8, 8), None, torch.device("cpu"))
    x, label = images().batch(torch.arange(16))
    victim, rates = guessing(), []
    mean = [p.detach().clone() for p in game.generator.parameters()]
    for _ in range(3):
        game.train_step(victim, x, label)
        rates.append([each.param_groups[0]["lr"] for each in game.optimisers.values()])
        mean = [
            0.05 * kept + 0.95 * p.detach() for kept, p in zip(mean, game.generator.parameters(), strict=True)
        ]
    assert np.allclose(rates, np.outer([1, 0.5 + 0.5**1.5, 0.5], [1e-2, 1e-2]))
    for p, kept in zip(game.best().parameters(), mean, strict=True):
        torch.testing.assert_close(p, kept, rtol=1e-4, atol=1e-6)
    assert AdvGanGame(settings(ema=0), LINF, (1, 8, 8), None, torch.device("cpu")).ema is None


def test_hits_are_inside_the_budget_and_have_no_answer_that_is_nan(images):
    data = images(5)
    labels = data.labels.clone()
    logits = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 0, 1]), 3).float()
    logits[4, 0] = torch.nan

    class Says(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return logits

    x = data.images + 0.1 * torch.tensor([0, 0, 1, 2, 0]).view(-1, 1, 1, 1)
    assert labels.tolist() == [0, 1, 0, 1, 0]
    met, said = hits(Says(), x, data, LINF, None)
    assert met.tolist() == [False, False, True, False, False] and said.tolist() == [0, 1, 1, 0, -1]
    assert hits(Says(), x, data, LINF, 1)[0].tolist() == [False, True, True, False, False]


def test_a_copy_is_trained_in_its_turns_on_what_was_asked_by_then(model, images, monkeypatch, tmp_path):
    """51 questions before the first update, 17 more before each further training, of 300 updates."""
    told = []

    def trained(copy, queries, names, config, device):
        told.append((game.step, len(queries), config.epochs, config.seed))
        return SimpleNamespace(model=copy)

    monkeypatch.setattr("advkit.trained_attacks.generators.distilled.train_copy", trained)
    config = settings(black_box="dynamic", queries=103, rounds=4, steps=10, copy_arch="mlp")
    game = SimpleNamespace(step=0, best=torch.nn.Tanh, threat=LINF)
    copy = Distilled(model, images(80), config, torch.device("cpu"), folder=tmp_path)
    assert len(copy.images(None)) == 51 and len(copy.images(1)) < 51
    for game.step in range(10):
        copy.ready(game)
    assert [each[:2] for each in told] == [(0, 51), (2, 68), (5, 85), (7, 102)]
    assert [each[2] for each in told[1:]] == [150, 150, 150] and len({seed for *_, seed in told}) == 4
    assert copy.facts(model, images(40, 1))["asked"] == {"real": 51, "adversarial": 51}
    state, again = copy.state(), Distilled(model, images(80), config, torch.device("cpu"), folder=tmp_path)
    again.restore(state)
    again.ready(game)
    assert len(told) == 4 and copy.box.asked == 102
    still = settings(black_box="static", queries=60, copy_arch="mlp")
    game.step = 0
    once = Distilled(model, images(80), still, torch.device("cpu"))
    for game.step in range(4):
        once.ready(game)
    assert told[4:] == [(0, 60, None, 0)]


def test_random_changes_use_the_whole_budget(images):
    data = images()
    for threat in (LINF, Threat("l2", 0.7)):
        size = threat.distance(noise(data, threat, 0), data.images)
        torch.testing.assert_close(size, torch.full((60,), threat.eps))


def test_faults_are_told(model, images):
    for threat, config in (
        (Threat("l1", 3), settings()),
        (LINF, settings(generator={"widht": 3})),
        (LINF, settings(opponent="lenett")),
    ):
        with pytest.raises(ConfigError):
            make_generator(model, images(), images(), threat, None, config)
    for idle in ({"queries": 5}, {"black_box": "static", "rounds": 3}):
        with pytest.raises(ValueError):
            settings(**idle)
    wrong = images()
    wrong.labels.fill_(2)
    with pytest.raises(DataError):
        make_generator(model, images(), wrong.limit(10), LINF, None, settings(steps=1))


class Counting(torch.nn.Module):
    """Notes how many images it is shown, and that nobody wants a gradient of it."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seen = network, 0

    def forward(self, x):
        assert not x.requires_grad
        self.seen += len(x)
        return self.network(x)


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_black_box_is_misled_from_its_answers_alone(mode, model, images, monkeypatch):
    monkeypatch.setattr("advkit.trained_attacks.generators.distilled.UPDATES", 50)
    monkeypatch.setattr(SubstituteTraining, "enough", (200, 5))
    rounds = {"rounds": 2} if mode == "dynamic" else {}
    config = settings(black_box=mode, queries=200, copy_arch="mlp", **rounds)
    model.network = Counting(model.network)
    asked = []
    original = BlackBox.query
    monkeypatch.setattr(BlackBox, "query", lambda box, x: asked.append(len(x)) or original(box, x))
    figures = make_generator(
        model, images(300), images(40, 1, "test"), Threat("linf", 0.2), None, config
    ).figures
    box = figures["black_box"]
    assert box["asked"] == ({"real": 200} if mode == "static" else {"real": 100, "adversarial": 100})
    assert sum(asked) == 200 == box["limit"]
    assert box["agreed"] > 30
    assert figures["rate"] > 0.3 and figures["hits"] > 3 * figures["hits_by_noise"]


def test_a_resumed_black_box_run_asks_nothing_twice(model, images, stopping, tmp_path, monkeypatch):
    monkeypatch.setattr("advkit.trained_attacks.generators.distilled.UPDATES", 5)
    monkeypatch.setattr(SubstituteTraining, "enough", (20, 1))
    config = settings(black_box="dynamic", queries=60, rounds=3, copy_arch="mlp", steps=9, checks=9)
    test, asked = images(20, 1, "test"), []
    whole = make_generator(model, images(), test, LINF, None, config)
    original = BlackBox.query
    monkeypatch.setattr(BlackBox, "query", lambda box, x: asked.append(len(x)) or original(box, x))

    def run(**said):
        with RunFolder.open("advgan-train", "toy", config, tmp_path / "run") as folder:
            return make_generator(model, images(), test, LINF, None, config, run=folder, **said)

    with pytest.raises(KeyboardInterrupt):
        run(progress=stopping)
    assert weights_hash(run().generator.state_dict()) == weights_hash(whole.generator.state_dict())
    assert asked == [30, 15, 15]
