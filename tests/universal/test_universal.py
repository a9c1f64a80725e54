"""Trained patches and perturbations, where the best ones are known."""

import json
from dataclasses import replace

import pytest
import torch

import advkit
from advkit.errors import ConfigError, DataError
from advkit.levels import are_levels
from advkit.runs import RunFolder
from advkit.threat import Threat
from advkit.universal import train as training
from advkit.universal.judge import PatchJudge, judge_perturbation, printed
from advkit.universal.patch import Patch
from advkit.universal.perturbation import Perturbation
from advkit.universal.plan import Climbing, PatchSettings
from advkit.universal.result import PatchResult, PerturbationResult
from advkit.universal.subjects import class_number
from advkit.universal.train import train

SHORT = {"steps": 40, "batch_size": 20}


def covered(pixels):
    """Pixels of a round patch whose middle is on it."""
    along = (torch.arange(pixels) + 0.5) / pixels * 2 - 1
    return along[:, None].square() + along[None].square() < 0.8


def test_the_best_patch_for_a_linear_classifier_is_found(bright, images):
    learn, test = images(bright), images(bright, n=50, seed=1, split="test")
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


def test_the_figures_are_those_of_the_images(bright, images):
    """Half of the images wrong before, places by sample id: counted once more, by hand."""
    test = images(bright, n=40)
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
    seen = advkit.universal.place.paste(patch, test.images[right], place, "circle")
    expected = int((bright(seen).argmax(1) == 1).sum())
    assert 0 < expected < len(judge.data) and judge.hits(patch, place) == expected
    places = judge.mapped(patch, 0.4)
    assert places.n == len(judge.data) and all(0 <= hit <= places.n for row in places.hits for hit in row)
    with pytest.raises(DataError, match="none of the"):
        PatchJudge(
            bright, replace(test, labels=torch.full_like(labels, 2)), Patch(settings, test.shape), 1, 3
        )


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.5)])
def test_the_best_targeted_perturbation_of_a_linear_classifier_is_found(norm, eps, mixed, images):
    model, weight = mixed
    threat = Threat(norm, eps)
    learn, test = images(model), images(model, n=50, seed=1, split="test")
    result = advkit.train_universal(model, learn, threat, test=test, target=1, **SHORT)
    best = eps * weight.sign() if norm == "linf" else eps * weight / weight.norm()
    assert torch.allclose(result.perturbation, best, atol=1e-5)
    assert result.size == pytest.approx(eps)
    judged = result.classifiers[0]
    with torch.no_grad():
        before, after = (model(x).argmax(1) for x in (test.images, (test.images + best).clamp(0, 1)))
    assert judged.judged == int((before != 1).sum()) and judged.hits == int(
        ((before != 1) & (after == 1)).sum()
    )
    assert judged.fooled == int((before != after).sum()) > 3 * judged.fooled_by_random
    assert judged.becomes == {"bright": judged.fooled}
    assert judged.correct == int((after == test.labels).sum())


def test_an_untargeted_perturbation_takes_the_larger_side(mixed, images):
    """No perturbation serves both classes of a linear classifier; most images are of class 0."""
    model, weight = mixed
    data = images(model, n=200)
    most = torch.cat([(data.labels == 0).nonzero()[:60, 0], (data.labels == 1).nonzero()[:10, 0]])
    data = data.take(most)
    result = advkit.train_universal(model, data, Threat("linf", 0.05), test=data, clip=1000.0, **SHORT)
    assert torch.allclose(result.perturbation, 0.05 * weight.sign(), atol=1e-5)
    assert result.classifiers[0].rate == pytest.approx(60 / 70, abs=0.01)


def test_several_classifiers_are_misled_alike_and_others_only_judged(mixed, images):
    model, weight = mixed
    twin = advkit.load_model(
        type(model.network)(torch.roll(weight, 1), -0.5 * float(weight.sum())), shape=(1, 12, 12)
    )
    data = images(model)
    threat = Threat("linf", 0.01)
    both = advkit.train_universal([model, twin], data, threat, test=data, target=1, **SHORT)
    agree = weight.sign() == torch.roll(weight, 1).sign()
    assert (both.perturbation[agree] == 0.01 * weight.sign()[agree]).all()
    assert [judged.trained_on for judged in both.classifiers] == [True, True]
    one = advkit.train_universal(model, data, threat, test=data, target=1, transfer=twin, **SHORT)
    assert [judged.trained_on for judged in one.classifiers] == [True, False]
    assert one.classifiers[1].label.endswith("(not trained on)")
    assert one.classifiers[0].hits > both.classifiers[0].hits


def test_what_leaves_the_budget_does_not_count(mixed, images):
    model, weight = mixed
    data = images(model)
    kind = Perturbation(Threat("linf", 0.05), data.shape, 0.1)
    facts = {"target": None, "seed": 0, "trained_on": True}
    inside = judge_perturbation(model, "toy", data, kind, 0.05 * weight[None].sign(), **facts)
    outside = judge_perturbation(model, "toy", data, kind, 0.06 * weight[None].sign(), **facts)
    assert inside.fooled > 0 and outside.fooled == 0


@pytest.mark.parametrize("after", ["patch", "perturbation"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(after, bright, images, stopping, tmp_path):
    data = images(bright)
    config = Climbing(steps=43, batch_size=7, seed=5)
    settings = PatchSettings(target=1)
    kind = (
        Patch(settings, data.shape) if after == "patch" else Perturbation(Threat("l2", 1.0), data.shape, 0.1)
    )

    def run(path, **more):
        with RunFolder.open("test", "toy", config, path) as folder:
            return train(kind, [bright], data, config, target=1, run=folder, **more), folder.history()

    whole, history = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", progress=stopping)
    step = torch.load(tmp_path / "cut/state.pt")["step"]
    assert 0 < step < 43
    resumed, again = run(tmp_path / "cut")
    assert torch.equal(whole, resumed) and history == again and len(history) == training.CHECKS
    other = replace(data, labels=1 - data.labels.clamp(max=1))
    with (
        pytest.raises(ConfigError, match="did not begin with the same training images"),
        RunFolder.open("test", "toy", config, tmp_path / "cut") as folder,
    ):
        train(kind, [bright], other, config, target=1, run=folder)


def test_the_model_and_the_global_generator_are_left_as_they_were(bright, images):
    data = images(bright)
    bright.train()
    state = torch.get_rng_state()
    first = advkit.train_patch(bright, data, 1, test=data, steps=3)
    assert bright.training and all(parameter.grad is None for parameter in bright.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(advkit.train_patch(bright, data, 1, test=data, steps=3).patch, first.patch)
    other = advkit.train_patch(bright, data, 1, test=data, steps=3, seed=1)
    assert torch.equal(other.patch, printed(other.patch))


def test_results_are_read_back_and_newer_ones_refused(bright, images, tmp_path):
    data = images(bright)
    patch = advkit.train_patch(bright, data, 1, test=data, steps=1)
    universal = advkit.train_universal(bright, data, Threat("linf", 0.1), test=data, steps=1)
    file = tmp_path / "result.json"
    for result, kind in ((patch, PatchResult), (universal, PerturbationResult)):
        file.write_text(json.dumps(result.as_values()))
        assert kind.load(tmp_path).as_values() == result.as_values()
        assert str(kind.load(file)) == str(result)
        file.write_text(json.dumps({**result.as_values(), "version": 99}))
        with pytest.raises(DataError, match="newer advkit"):
            kind.load(file)
    with pytest.raises(DataError, match="no result of advkit patch"):
        PatchResult.load(file)


def test_faults_are_told_in_one_sentence(bright, images):
    data = images(bright)
    assert class_number("bright", data) == class_number(1, data) == class_number("1", data) == 1
    with pytest.raises(ConfigError, match=r"no class 'brigth'.*did you mean 'bright'"):
        advkit.train_patch(bright, data, "brigth", test=data)
    with pytest.raises(ConfigError, match="no class 3"):
        advkit.train_patch(bright, data, 3, test=data)
    with pytest.raises(ConfigError, match="the smaller first"):
        advkit.train_patch(bright, data, 1, test=data, scale=(0.6, 0.3))
    with pytest.raises(ConfigError, match="unknown key 'step'"):
        advkit.train_patch(bright, data, 1, test=data, step=3)
    with pytest.raises(DataError, match="images to judge by are missing"):
        advkit.train_patch(bright, data, 1)
    with pytest.raises(DataError, match="no training image is of the class 'never'"):
        advkit.train_patch(bright, data, "never", test=data, steps=1)
    with pytest.raises(ConfigError, match="linf or l2, not in l1"):
        advkit.train_universal(bright, data, Threat("l1", 1.0), test=data)
