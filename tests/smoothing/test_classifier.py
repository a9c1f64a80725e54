"""The smoothed classifier: certificates hold and come close, and depend on image, id and seed alone."""

import pytest
import torch
from torch import nn

import advkit
from advkit.errors import ConfigError, DataError, ModelError
from advkit.models.architectures.mlp import MLP
from advkit.smoothing.classifier import ABSTAIN, SmoothedClassifier, smooth
from advkit.smoothing.noise import BLOCK, Copies

SAMPLES = 5000


def test_a_linear_classifier_is_certified_up_to_its_margin_and_not_beyond(halfspace, data):
    x, _ = data.batch(torch.arange(len(data)))
    true = halfspace.distance(x)
    found = smooth(halfspace, 0.25).certify(x, samples=SAMPLES)
    radii = torch.tensor([one.radius for one in found])
    assert (radii <= true.abs()).all()
    certain = radii > 0
    assert (radii[certain] > true.abs()[certain] - 0.06).all()
    assert certain.tolist() == (true.abs() > 0.025).tolist()
    for one, distance in zip(found, true.tolist(), strict=True):
        assert one.predicted == (int(distance > 0) if one.radius else ABSTAIN)
        assert 0 <= one.share < one.votes / SAMPLES or one.votes == 0


def test_more_sigma_reaches_farther_when_all_agree(halfspace):
    far = torch.ones(1, 1, 4, 4) * halfspace.w.detach().sign().view(1, 1, 4, 4).clamp_min(0)
    small, large = (smooth(halfspace, sigma).certify(far, samples=1000)[0] for sigma in (0.05, 0.1))
    assert small.votes == large.votes == 1000 and large.radius == pytest.approx(2 * small.radius)


@pytest.mark.parametrize("size", [1, 100, 250, 5000])
def test_answers_do_not_depend_on_the_pass_the_batch_or_the_order(size, halfspace, data):
    x, _ = data.batch(torch.arange(len(data)))
    ids = data.ids + 40
    whole = smooth(halfspace, 0.25).certify(x, ids, samples=950)
    cut = smooth(halfspace, 0.25, batch_size=size)
    assert cut.certify(x[[7, 2]], ids[[7, 2]], samples=950) == [whole[7], whole[2]]
    assert torch.equal(cut(x[3:5]), smooth(halfspace, 0.25)(x)[3:5])
    other = smooth(halfspace, 0.25, seed=1).certify(x, ids, samples=950)
    assert [one.votes for one in other] != [one.votes for one in whole]


def test_noise_is_gaussian_channels_last_unclipped_and_never_twice_the_same():
    image = torch.full((3, 5, 7), 0.5)
    copies = Copies(image, 2.0, seed=3, stream="test", sample=1)
    passes = [x.clone() for x in copies.passes(450, 200)]
    assert [len(x) for x in passes] == [200, 200, BLOCK]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in copies.passes(1, 200))
    drawn = torch.cat([*passes, next(iter(copies.passes(100, 100)))]) - image
    assert drawn.mean().item() == pytest.approx(0, abs=0.05)
    assert drawn.std().item() == pytest.approx(2, rel=0.02)
    assert drawn.abs().max() > 7
    assert len(drawn.flatten(1)[:, 0].unique()) == len(drawn)
    again = Copies(image, 2.0, seed=3, stream="test", sample=1)
    assert torch.equal(next(iter(again.passes(200, 200))), passes[0])
    for other in ({"sample": 2}, {"seed": 4}, {"stream": "other"}):
        made = Copies(image, 2.0, **{"seed": 3, "stream": "test", "sample": 1, **other})
        assert not torch.equal(next(iter(made.passes(200, 200))), passes[0])


def test_the_global_generator_and_the_model_stay_as_they_were(halfspace, data):
    x, _ = data.batch(torch.arange(2))
    before, weights = torch.get_rng_state(), halfspace.w.detach().clone()
    smoothed = smooth(halfspace.train(), 0.25)
    smoothed.certify(x, samples=100)
    smoothed.train()
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(halfspace.w, weights)
    assert halfspace.training and halfspace.w.requires_grad
    assert not any(module.training for module in smoothed.modules())


def test_it_abstains_where_the_votes_do_not_tell(halfspace, data):
    x, _ = data.batch(torch.arange(len(data)))
    near, far = smooth(halfspace, 0.5, samples=100), smooth(halfspace, 0.05, samples=100)
    assert near.predict(x)[5:7].tolist() == [ABSTAIN, ABSTAIN]
    assert far.predict(x)[[0, 11]].tolist() == [0, 1]
    assert smooth(halfspace, 0.5, samples=1).predict(x).eq(ABSTAIN).all()


def test_as_a_module_it_gives_the_logarithms_of_vote_shares(halfspace, data):
    x, _ = data.batch(torch.arange(len(data)))
    smoothed = smooth(halfspace, 0.25, samples=400)
    logits = smoothed(x)
    assert torch.equal(logits, smoothed(x)) and logits.isfinite().all()
    shares = torch.distributions.Normal(0, 0.25).cdf(halfspace.distance(x))
    assert torch.allclose(logits.exp()[:, 1], shares, atol=0.08)
    digests = {
        advkit.load_model(smooth(halfspace, sigma, seed=seed), shape=(1, 4, 4)).hash
        for sigma in (0.25, 0.5)
        for seed in (0, 1)
    }
    assert len(digests) == 4


def test_it_is_attacked_like_any_model(halfspace, data):
    data = data.take(torch.tensor([0, 4, 7, 11]))
    smoothed = smooth(halfspace, 0.25, samples=100)
    how = {"parameters": {"hop-skip-jump": {"queries": 150}}, "precision": "float32"}
    result = advkit.evaluate(smoothed, data, advkit.Threat("l2", 0.35), attack="hop-skip-jump", **how)
    true = halfspace.distance(data.images).abs()
    broken = torch.tensor([verdict.status == "broken" for verdict in result.verdicts])
    assert broken.any() and not broken[true > 0.45].any()


def test_models_of_files_and_with_preprocessing(tmp_path):
    network = MLP(MLP.Config(hidden=(8,)), shape=(1, 4, 4), classes=3)
    advkit.save_model(advkit.load_model(network, mean=(0.5,), std=(0.5,)), tmp_path / "clf.pt")
    x = torch.rand(2, 1, 4, 4)
    kept = smooth(tmp_path / "clf.pt", 0.25).certify(x, samples=200)
    assert kept == smooth(advkit.load_model(network, mean=(0.5,), std=(0.5,)), 0.25).certify(x, samples=200)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sigma": 0.0}, "above 0"),
        ({"sigma": float("nan")}, "above 0"),
        ({"sigma": 0.5, "alpha": 1.0}, "between 0 and 1"),
        ({"sigma": 0.5, "samples": 0}, "1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said, halfspace):
    with pytest.raises(ConfigError, match=said):
        smooth(halfspace, **settings)


class Broken(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3].log()  # negative pixels have none


def test_what_cannot_be_judged_is_refused(halfspace):
    x = torch.rand(2, 1, 4, 4)
    for ask in (lambda s: s(x), lambda s: s.predict(x), lambda s: s.certify(x, samples=100)):
        with pytest.raises(ModelError, match="NaN or infinite logits on noisy images"):
            ask(SmoothedClassifier(Broken(), 0.5))
    smoothed = smooth(halfspace, 0.5)
    with pytest.raises(ConfigError, match="take 10 samples or more"):
        smoothed.certify(x, samples=5)
    with pytest.raises(ConfigError, match="at least 1 vote"):
        smoothed.certify(x, selection=0, samples=100)
    with pytest.raises(DataError, match="ids"):
        smoothed.predict(x, torch.arange(3))
    with pytest.raises(DataError, match=r"\(N, C, H, W\)"):
        smoothed.predict(x[0])
