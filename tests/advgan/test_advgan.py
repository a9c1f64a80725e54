"""The training of a perturbation generator, and what it does."""

import pytest
import torch

from advkit.advgan.game import AdvGanGame
from advkit.advgan.judge import attackable, hits, made, noise
from advkit.advgan.make import make_generator
from advkit.advgan.plan import AdvGanSettings
from advkit.attacks.advgan import moved
from advkit.errors import ConfigError, DataError
from advkit.models.model import weights_hash
from advkit.runs import RunFolder
from advkit.substitute.black_box import BlackBox
from advkit.substitute.plan import SubstituteTraining
from advkit.threat import Threat

SMALL = {
    "generator": {"width": 4, "depth": 1},
    "discriminator": {"channels": (4, 8)},
    "checks": 4,
    "rate": 1e-2,
}
LINF = Threat("linf", 0.1)


def settings(**said):
    return AdvGanSettings(**{"steps": 25, "batch_size": 16, **SMALL, **said})


@pytest.mark.parametrize("threat", [LINF, Threat("l2", 0.9)], ids=str)
def test_a_generator_misleads_where_random_changes_do_not(threat, model, images):
    found = make_generator(model, images(), images(40, 1, "test"), threat, None, settings())
    figures = found.figures
    assert (figures["n"], figures["clean_correct"], figures["judged"]) == (
        40,
        36,
        36,
    )  # four labels are wrong
    assert figures["rate"] >= 0.9
    assert figures["hits_by_noise"] <= 4
    assert sum(figures["becomes"].values()) == figures["hits"]
    test = attackable(model, images(40, 1, "test"), None)
    x, _ = made(found.generator, test, threat, torch.device("cpu"))
    assert threat.contains(x, test.images).all()
    assert int(hits(model, x, test, threat, None)[0].sum()) == figures["hits"]


def test_a_target_is_reached(model, images):
    found = make_generator(model, images(), images(40, 1, "test"), LINF, 1, settings())
    assert found.figures["judged"] == 20 and found.figures["clean_correct"] == 36
    assert found.figures["rate"] >= 0.9 and list(found.figures["becomes"]) == ["bright"]


def test_the_classifier_stays_as_it_is(model, images):
    model.train()
    model.network.eval()
    before, modes = weights_hash(model.state_dict()), [module.training for module in model.modules()]
    make_generator(model, images(), images(20, 1, "test"), LINF, None, settings(steps=3))
    assert weights_hash(model.state_dict()) == before
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_discriminator_holds_the_generator_back(model, images):
    """Toward images that it takes for real: what it does with a large weight is smaller."""
    data = attackable(model, images(), None)
    size = {}
    for weight in (0.0, 1000.0):
        game = AdvGanGame(settings(gan_weight=weight), LINF, data.shape, None, torch.device("cpu"))
        for _ in range(25):
            figures = game.play(model, *data.batch(torch.arange(32)))
        x, _ = made(game.best(), data, LINF, torch.device("cpu"))
        size[weight] = float((x - data.images).abs().mean())
        assert (figures[2] > 0) == (weight > 0)
    assert size[1000.0] < 0.8 * size[0.0]


def test_a_resumed_run_ends_with_the_same_weights(model, images, stopping, tmp_path):
    config, test = settings(steps=8), images(20, 1, "test")
    whole = make_generator(model, images(), test, LINF, None, config)

    def run(progress=None):
        with RunFolder.open("advgan-train", "toy", config, tmp_path / "run") as folder:
            extra = {} if progress is None else {"progress": progress}
            found = make_generator(model, images(), test, LINF, None, config, run=folder, **extra)
            return found, folder.history()

    with pytest.raises(KeyboardInterrupt):
        run(stopping)
    again, history = run()
    assert weights_hash(again.generator.state_dict()) == weights_hash(whole.generator.state_dict())
    assert [row["step"] for row in history] == [2, 4, 6, 8]


def test_what_is_moved_stays_inside_and_has_a_gradient():
    x = torch.rand(6, 1, 8, 8)
    for threat in (LINF, Threat("l2", 0.7)):
        direction = torch.randn(6, 1, 8, 8).tanh().requires_grad_(True)
        there = moved(threat, x, direction)
        assert threat.contains(there, x).all()
        there.square().sum().backward()
        assert direction.grad.isfinite().all() and direction.grad.any()
        assert torch.equal(moved(threat, x, torch.zeros_like(x)), x)


def test_random_changes_use_the_whole_budget(images):
    data = images()
    for threat in (LINF, Threat("l2", 0.7)):
        torch.testing.assert_close(
            threat.distance(noise(data, threat, 0), data.images), torch.full((60,), threat.eps)
        )


def test_faults_are_told(model, images):
    with pytest.raises(ConfigError, match="work in linf and l2, not in l1"):
        make_generator(model, images(), images(), Threat("l1", 3), None, settings())
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        make_generator(model, images(), images(), LINF, None, settings(generator={"widht": 3}))
    with pytest.raises(ConfigError, match="'lenett-discriminator'"):
        make_generator(model, images(), images(), LINF, None, settings(opponent="lenett"))
    with pytest.raises(ValueError, match="queries means nothing without black_box static or dynamic"):
        settings(queries=5)
    with pytest.raises(ValueError, match="rounds means nothing without black_box dynamic"):
        settings(black_box="static", rounds=3)
    wrong = images()
    wrong.labels.fill_(2)
    with pytest.raises(DataError, match="none of the 10 images of toy"):
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
    monkeypatch.setattr("advkit.advgan.distilled.UPDATES", 50)
    monkeypatch.setattr(SubstituteTraining, "enough", (200, 5))
    rounds = {"rounds": 2} if mode == "dynamic" else {}
    config = settings(black_box=mode, queries=200, copy_arch="mlp", **rounds)
    model.network = Counting(model.network)
    asked = []
    original = BlackBox.ask
    monkeypatch.setattr(BlackBox, "ask", lambda box, x: asked.append(len(x)) or original(box, x))
    figures = make_generator(
        model, images(300), images(40, 1, "test"), Threat("linf", 0.2), None, config
    ).figures
    box = figures["black_box"]
    assert box["asked"] == ({"real": 200} if mode == "static" else {"real": 100, "adversarial": 100})
    assert sum(asked) == 200 == box["limit"]
    assert box["agreed"] > 30
    assert figures["rate"] > 0.3 and figures["hits"] > 3 * figures["hits_by_noise"]


def test_a_resumed_black_box_run_asks_nothing_twice(model, images, stopping, tmp_path, monkeypatch):
    monkeypatch.setattr("advkit.advgan.distilled.UPDATES", 5)
    monkeypatch.setattr(SubstituteTraining, "enough", (20, 1))
    config = settings(black_box="dynamic", queries=60, rounds=3, copy_arch="mlp", steps=9, checks=9)
    test, asked = images(20, 1, "test"), []
    whole = make_generator(model, images(), test, LINF, None, config)
    original = BlackBox.ask
    monkeypatch.setattr(BlackBox, "ask", lambda box, x: asked.append(len(x)) or original(box, x))

    def run(**said):
        with RunFolder.open("advgan-train", "toy", config, tmp_path / "run") as folder:
            return make_generator(model, images(), test, LINF, None, config, run=folder, **said)

    with pytest.raises(KeyboardInterrupt):
        run(progress=stopping)
    assert weights_hash(run().generator.state_dict()) == weights_hash(whole.generator.state_dict())
    assert asked == [30, 15, 15]
