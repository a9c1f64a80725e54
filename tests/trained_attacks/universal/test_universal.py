"""Trained patches and perturbations, where the best ones are known."""

from dataclasses import replace

import pytest
import torch

import advkit
from advkit.core import rng
from advkit.core.errors import ConfigError, DataError
from advkit.core.levels import are_levels
from advkit.core.threat import Threat
from advkit.data.augment import Order
from advkit.models.load import wrap
from advkit.trained_attacks.universal import judge as judging
from advkit.trained_attacks.universal.change import Patch, Perturbation, Place, paste
from advkit.trained_attacks.universal.judge import PatchJudge, judge_perturbation, random_like
from advkit.trained_attacks.universal.make import _most_confident, class_number
from advkit.trained_attacks.universal.settings import ChangeSettings, PatchSettings
from advkit.trained_attacks.universal.train import ChangeTraining
from advkit.training.loop import repeat

SHORT = {"steps": 40, "batch_size": 20}


def covered(pixels):
    """Pixels of a round patch whose middle is on it."""
    along = (torch.arange(pixels) + 0.5) / pixels * 2 - 1
    return along[:, None].square() + along[None].square() < 0.8


def test_the_best_patch_for_a_linear_classifier_is_found(bright, grey):
    learn, test = grey(bright), grey(bright, n=50, seed=1, split="test")
    result = advkit.train_patch(bright, learn, "bright", test=test, scale=(0.3, 0.6), **SHORT)
    patch = result.patch
    assert patch.shape == (1, 8, 8) and are_levels(patch)
    assert patch[0][covered(8)].min() > 0.99  # white makes an image as bright as a patch can
    judged = result.classifiers[0]
    assert 0 < judged.judged == int((test.labels == 0).sum()) < judged.clean_correct == judged.n == 50
    assert judged.rate == 1.0 and judged.anywhere.patch == judged.judged
    assert judged.anywhere.grey < judged.judged / 2
    assert [len(judged.by_scale), len(judged.by_place), len(judged.by_place[0].hits)] == [5, 3, 7]
    assert judged.interval.low > 0.8


def test_the_figures_are_those_of_the_images(bright, grey, monkeypatch):
    """Half of the images wrong before, places by sample id: counted once more, by hand."""
    test = grey(bright, n=40)
    labels = test.labels.clone()
    labels[::2] = 2
    test = replace(test, labels=labels)
    settings = PatchSettings(target=1, scale=(0.4, 0.5))
    judge = PatchJudge(bright, test, Patch(settings, test.shape), 1, seed=3)
    right = (bright(test.images).argmax(1) == labels) & (labels != 1)
    assert judge.clean_correct == int((bright(test.images).argmax(1) == labels).sum()) < 40
    assert torch.equal(judge.data.ids, right.nonzero()[:, 0])
    patch = torch.full((1, 1, 6, 6), 0.6)
    place = judge.drawn((0.4, 0.5), "judge")
    seen = paste(patch, test.images[right], place, "circle")
    expected = int((bright(seen).argmax(1) == 1).sum())
    assert 0 < expected < len(judge.data) and judge.hits(patch, place) == expected
    monkeypatch.setattr(judging, "MAPPED", 7)
    monkeypatch.setattr(judging, "PLACES", 3)
    places = judge.mapped(patch, 0.4)
    upright = judge.drawn((0.4, 0.4), "map").angle[:7]
    assert places.n == 7 and (places.scale, len(places.hits)) == (0.4, 3)
    for row, down in zip(places.hits, (0.0, 0.5, 1.0), strict=True):
        for hits, across in zip(row, (0.0, 0.5, 1.0), strict=True):
            at = Place(*(torch.full((7,), value) for value in (0.4, 0.0, across, down)))
            at.angle = upright
            seen = paste(patch, test.images[right][:7], at, "circle")
            assert hits == int((bright(seen).argmax(1) == 1).sum())
    assert len({hits for row in places.hits for hits in row}) > 1
    with pytest.raises(DataError):
        PatchJudge(bright, replace(test, labels=0 * labels + 2), Patch(settings, test.shape), 1, 3)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.5)])
def test_the_best_targeted_perturbation_of_a_linear_classifier_is_found(norm, eps, mixed, grey):
    model, weight = mixed
    threat = Threat(norm, eps)
    learn, test = grey(model), grey(model, n=50, seed=1, split="test")
    result = advkit.train_universal(model, learn, threat, test=test, target=1, **SHORT)
    best = eps * weight.sign() if norm == "linf" else eps * weight / weight.norm()
    assert torch.allclose(result.perturbation, best, atol=1e-5)
    assert result.size == pytest.approx(eps)
    judged = result.classifiers[0]
    with torch.no_grad():
        before, after = (model(x).argmax(1) for x in (test.images, (test.images + best).clamp(0, 1)))
    aimed = before != 1
    assert (judged.judged, judged.hits) == (int(aimed.sum()), int((aimed & (after == 1)).sum()))
    assert judged.fooled == int((before != after).sum()) > 3 * judged.fooled_by_random
    assert judged.becomes == {"bright": judged.fooled} and judged.rate == judged.hits / judged.judged
    random = random_like(Perturbation(threat, test.shape, 0.1), 0)
    assert threat.distance(random, random * 0).item() == pytest.approx(eps)
    with torch.no_grad():
        anyhow = model((test.images + random).clamp(0, 1)).argmax(1)
    assert judged.fooled_by_random == int((anyhow != before).sum())
    assert judged.correct == int((after == test.labels).sum())


def test_an_untargeted_perturbation_takes_the_larger_side(mixed, grey):
    """No perturbation serves both classes of a linear classifier; most images are of class 0."""
    model, weight = mixed
    data = grey(model, n=200)
    most = torch.cat([(data.labels == 0).nonzero()[:60, 0], (data.labels == 1).nonzero()[:10, 0]])
    data = data.take(most)
    result = advkit.train_universal(model, data, Threat("linf", 0.05), test=data, clip=1000.0, **SHORT)
    assert torch.allclose(result.perturbation, 0.05 * weight.sign(), atol=1e-5)
    assert result.classifiers[0].rate == pytest.approx(60 / 70, abs=0.01)
    # What leaves the budget does not count.
    kind, facts = (
        Perturbation(Threat("linf", 0.05), data.shape, 0.1),
        {"name": "toy", "seed": 0, "trained_on": True},
    )
    judged = [
        judge_perturbation(model, data, kind, size * weight[None].sign(), target=None, **facts)
        for size in (0.05, 0.06)
    ]
    assert judged[0].fooled > 0 and judged[1].fooled == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("target", [None, 1])
def test_every_update_is_a_step_of_normalised_momentum(norm, target, grey):
    """Beside a plain loop of three updates on two curved classifiers."""
    models = []
    for seed in (1, 2):
        layers = torch.nn.Linear(144, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)
        network = torch.nn.Sequential(torch.nn.Flatten(), *layers)
        for at, parameter in enumerate(network.parameters()):
            parameter.data = rng.normal(torch.tensor([10 * seed + at]), tuple(parameter.shape))[0] / 3
        models.append(wrap(network, shape=(1, 12, 12)).eval())
    data, threat = grey(models[0], n=20), Threat(norm, 0.3)
    labels = torch.arange(20) % 3
    data = replace(data, labels=labels)
    config = ChangeSettings(steps=3, batch_size=8, momentum=0.6, seed=4)
    training = ChangeTraining(Perturbation(threat, data.shape, 0.7), models, data, config, target, 1.1)
    repeat(training)
    now, velocity, order = torch.zeros(1, 1, 12, 12), 0, Order(20, 8, 4)
    for step in range(3):
        index, leaf, loss = order.batch(step), now.clone().requires_grad_(True), 0
        for model in models:
            logits = model((data.images[index] + leaf).clamp(0, 1))
            if target is None:
                each = torch.nn.functional.cross_entropy(logits, labels[index], reduction="none")
                loss = loss + torch.minimum(each, torch.tensor(1.1)).mean() / 2
            else:
                loss = loss + logits.log_softmax(1)[:, target].mean() / 2
        (slope,) = torch.autograd.grad(loss, leaf)
        velocity = 0.6 * velocity + slope / slope.abs().mean()
        way = velocity.sign() if norm == "linf" else velocity / velocity.norm()
        now = threat.project(0.5 + now + 0.7 * (1 - step / 3) * 0.3 * way, torch.full_like(now, 0.5)) - 0.5
    torch.testing.assert_close(training.change, now, rtol=0, atol=1e-5)


def test_several_classifiers_are_misled_alike_and_others_only_judged(mixed, grey):
    model, weight = mixed
    twin = advkit.load_model(
        type(model.network)(torch.roll(weight, 1), -0.5 * float(weight.sum())), shape=(1, 12, 12)
    )
    data = grey(model)
    threat = Threat("linf", 0.01)
    both = advkit.train_universal([model, twin], data, threat, test=data, target=1, **SHORT)
    agree = weight.sign() == torch.roll(weight, 1).sign()
    assert (both.perturbation[agree] == 0.01 * weight.sign()[agree]).all()
    assert [judged.trained_on for judged in both.classifiers] == [True, True]
    one = advkit.train_universal(model, data, threat, test=data, target=1, transfer=twin, **SHORT)
    assert [judged.trained_on for judged in one.classifiers] == [True, False]
    assert one.classifiers[1].label.endswith("(not trained on)")
    assert one.classifiers[0].hits > both.classifiers[0].hits


def test_the_model_and_the_global_generator_are_left_as_they_were(bright, grey):
    data = grey(bright)
    bright.train()
    state = torch.get_rng_state()
    first = advkit.train_patch(bright, data, 1, test=data, steps=3)
    assert bright.training and all(parameter.grad is None for parameter in bright.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(advkit.train_patch(bright, data, 1, test=data, steps=3).patch, first.patch)


def test_faults_are_told_in_one_sentence(bright, grey):
    data = grey(bright)
    assert [class_number(given, data.class_names, "toy") for given in ("bright", 1, "1")] == [1, 1, 1]
    for kind, target, more in (
        (ConfigError, "brigth", {}),
        (ConfigError, 3, {}),
        (ConfigError, 1, {"scale": (0.6, 0.3)}),
        (ConfigError, 1, {"step": 3}),
        (DataError, 1, {"test": None}),
        (DataError, "never", {"steps": 1}),
    ):
        with pytest.raises(kind):
            advkit.train_patch(bright, data, target, **{"test": data, **more})
    with pytest.raises(ConfigError):
        advkit.train_universal(bright, data, Threat("l1", 1.0), test=data)


def test_the_most_confident_image_of_a_class_is_found_among_any_number():
    digits = advkit.load_data("digits", "test", limit=40)
    with rng.scope("cpu", 0, "confident"):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    model = wrap(network, shape=digits.shape).eval()
    threes = (digits.labels == 3).nonzero()[:, 0]
    for some in (threes, threes[:1]):
        x, _ = digits.batch(some)
        best = model(x).softmax(1)[:, 3].argmax()
        assert torch.equal(_most_confident(model, digits.take(some), 3), x[best][None])
    with pytest.raises(DataError):
        _most_confident(model, digits.take(threes), 4)
