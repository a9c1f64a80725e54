"""The smoothed classifier, beside votes that are counted by hand of noise that is drawn by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest, kstest, norm
from torch import nn

import advkit
from advkit.core import rng
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.models.architectures.mlp import MLP
from advkit.verify.smoothing.classifier import ABSTAIN, smooth
from advkit.verify.smoothing.noise import Copies
from advkit.verify.smoothing.statistics import chance

FROM_1, SHARE, CLASSES = st.integers(1, 700), st.floats(0.001, 0.5), st.integers(2, 4)


def tallies(image, classes, counts, sigma, seed, stream, sample):
    """Votes of copy after copy, drawn in blocks of 100, channels last; each count begins with a new block."""
    generator = torch.Generator().manual_seed(rng.derive(seed, stream, sample))
    channels, height, width = image.shape
    for count in counts:
        room = [torch.empty(100, height, width, channels) for _ in range(math.ceil(count / 100))]
        noise = torch.cat([block.normal_(0, sigma, generator=generator) for block in room])
        pixels = (image + noise.permute(0, 3, 1, 2)).flatten(1)[:count, :classes]
        yield torch.bincount(pixels.argmax(1), minlength=classes)


@settings(max_examples=25)
@given(
    FROM_1, st.integers(30, 700), FROM_1, st.floats(0.001, 0.5), st.floats(0.1, 1), FROM_1, st.integers(2, 4)
)
def test_answers_are_those_of_votes_counted_by_hand(
    brightest, selection, samples, size, alpha, sigma, seed, classes
):
    ids = torch.tensor([seed, 3, 0])
    x = rng.uniform(rng.keys(seed, "images", ids), (2, 2, 3))
    smoothed = smooth(brightest(classes), sigma, samples=samples, alpha=alpha, seed=seed, batch_size=size)
    found = smoothed.certify(x, ids, selection=selection, samples=samples)
    predicted, logits = smoothed.predict(x, ids), smoothed(x)
    for row, (image, sample, one) in enumerate(zip(x, ids.tolist(), found, strict=True)):
        how = (sigma, seed, "smoothing", sample)
        first, votes = tallies(image, classes, (selection, samples), *how)
        assert one.selected == first.argmax() and one.votes == votes[one.selected]
        share = beta.ppf(alpha, one.votes, samples - one.votes + 1) if one.votes else 0
        assert one.share == pytest.approx(share, rel=1e-6)
        assert one.radius == pytest.approx(max(0, sigma * norm.ppf(share)), rel=1e-6, abs=1e-9)
        assert one.predicted == (one.selected if one.radius > 0 else -1)
        heard, passes = [], 100 * max(1, size // 100)
        assert smoothed.certify_one(image, sample, selection, samples, heard.append) == one
        assert heard == [*range(passes, samples, passes), samples]
        (votes,) = tallies(image, classes, (samples,), *how)
        best, second = votes.topk(2).values.tolist()
        sure = binomtest(best, best + second).pvalue <= alpha
        assert predicted[row] == (votes.argmax() if sure else -1)
        (votes,) = tallies(image, classes, (samples,), sigma, seed, "smoothing queries", 0)
        wanted = [math.log(max(count, 0.5) / samples) for count in votes.tolist()]
        assert logits[row].tolist() == pytest.approx(wanted, abs=1e-5)


def test_what_is_not_said_is_as_in_the_paper(brightest, data):
    x = data.images[5:7]
    one, other = smooth(brightest(), 0.25), smooth(brightest(), 0.25, samples=1000, alpha=0.001, seed=0)
    assert one(x).equal(other(x)) and one.predict(x).equal(other.predict(x, torch.arange(2)))
    assert one.certify(x) == other.certify(x, torch.arange(2), selection=100, samples=100_000)
    assert ABSTAIN == -1 and not any(module.training for module in one.train().modules())
    assert not any(module.training for module in smooth(brightest(), 0.25).modules())


def test_a_p_value_of_alpha_is_enough(brightest, data):
    x = data.images[6:7]
    (votes,) = tallies(x[0], 2, (300,), 0.25, 0, "smoothing", 0)
    p = chance(int(votes.max()), int(votes.min()))
    for alpha, answer in ((p, int(votes.argmax())), (math.nextafter(p, 0), ABSTAIN)):
        assert smooth(brightest(), 0.25, samples=300, alpha=alpha).predict(x).tolist() == [answer]


def test_certificates_fail_as_often_as_alpha_says_and_not_much_less(brightest, data, distances):
    many = smooth(brightest(), 0.25, alpha=0.2).certify(data.images[7].expand(400, 1, 2, 3), samples=200)
    failed = sum(one.radius > distances[7] for one in many) / 400
    assert 0.1 < failed < 0.25 and {one.predicted for one in {*many}} == {1}


def test_noise_is_gaussian_unclipped_and_never_twice_the_same():
    image = torch.full((3, 5, 7), 0.5)
    draw = {"sigma": 2.0, "seed": 3, "stream": "test", "sample": 1}
    copies = Copies(image, **draw)
    passes = [x.clone() for x in copies.passes(450, 270)]
    assert [len(x) for x in passes] == [200, 200, 100]
    assert [len(x) for x in copies.passes(250, 1)] == [100, 100, 100]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in copies.passes(1, 200))
    noise = (torch.cat([*passes, next(iter(copies.passes(100, 100)))]) - image).flatten(1) / 2
    assert kstest(noise.flatten(), "norm").pvalue > 0.01
    assert torch.corrcoef(noise.T).triu(1).abs().max() < 0.25
    for other in ({"sample": 2}, {"seed": 4}, {"stream": "other"}):
        (drawn,) = Copies(image, **{**draw, **other}).passes(100, 100)
        noise = torch.cat([noise, (drawn - image).flatten(1) / 2])
    assert torch.corrcoef(noise).triu(1).abs().max() < 0.6


def test_the_global_generator_and_the_model_stay_as_they_were():
    x, model = torch.full((2, 1, 2, 3), 0.5), nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(6, 2))
    before, weights = torch.get_rng_state(), model[2].weight.detach().clone()
    smoothed = smooth(model, 0.25)
    for mine in (smoothed, smoothed.train()):
        assert not any(module.training for module in mine.modules())
        assert not any(weight.requires_grad for weight in mine.parameters())
        assert mine.certify(x, samples=100) == mine.certify(x, samples=100)
    assert torch.get_rng_state().equal(before) and model[2].weight.equal(weights)
    assert all(module.training for module in model.modules()) and model[2].weight.requires_grad


def test_a_hash_tells_one_smoothing_from_another(brightest):
    settings = [(0.25, 0, 10), (0.5, 0, 10), (0.25, 1, 10), (0.25, 0, 20)]
    made = [smooth(brightest(), sigma, seed=seed, samples=samples) for sigma, seed, samples in settings]
    assert len({advkit.load_model(one, shape=(1, 2, 3)).hash for one in made}) == 4


def test_it_is_attacked_like_any_model(brightest, data, distances):
    few = torch.tensor([0, 4, 7, 11])
    how = {"parameters": {"hop-skip-jump": {"queries": 150}}, "precision": "float32"}
    smoothed, threat = smooth(brightest(), 0.25, samples=100), advkit.Threat("l2", 0.35)
    result = advkit.evaluate(smoothed, data.take(few), threat, attack="hop-skip-jump", **how)
    broken = torch.tensor([verdict.status == "broken" for verdict in result.verdicts])
    assert broken.any() and not broken[distances[few].abs() > 0.45].any()


def test_models_of_files_and_with_preprocessing(tmp_path):
    network = MLP(MLP.Config(hidden=(8,)), shape=(1, 4, 4), classes=3)
    model = advkit.load_model(network, mean=(0.5,), std=(0.5,))
    advkit.save_model(model, tmp_path / "clf.pt")
    x = rng.uniform(torch.arange(2), (1, 4, 4))
    kept = smooth(tmp_path / "clf.pt", 0.25).certify(x, samples=200)
    assert kept == smooth(model, 0.25).certify(x, samples=200)


WRONG = [{"sigma": sigma} for sigma in (0.0, -1.0, math.nan, math.inf)]
WRONG += [{"alpha": alpha} for alpha in (0.0, 1.0)] + [{"samples": 0}, {"batch_size": 0}]


@pytest.mark.parametrize("settings", WRONG)
def test_settings_out_of_range_are_refused(settings, brightest):
    with pytest.raises(ConfigError):
        smooth(brightest(), **{"sigma": 0.5, **settings})


class Broken(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3].log()  # negative pixels have none


def test_what_cannot_be_judged_is_refused(brightest):
    x, smoothed = rng.uniform(torch.arange(2), (1, 2, 3)), smooth(brightest(), 0.5)
    for ask in (lambda s: s(x), lambda s: s.predict(x), lambda s: s.certify(x, samples=100)):
        with pytest.raises(ModelError):
            ask(smooth(Broken(), 0.5))
    for votes in ({"samples": 9}, {"selection": 0, "samples": 100}):
        with pytest.raises(ConfigError):
            smoothed.certify(x, **votes)
    for wrong in ((x, torch.arange(3)), (x[0],), (x.mul(255).byte(),)):
        with pytest.raises(DataError):
            smoothed.predict(*wrong)
    assert len(smoothed.certify(x, selection=1, samples=10)) == len(smooth(brightest(), 1, samples=1)(x)) == 2
