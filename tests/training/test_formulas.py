"""Formulas of objectives beside small computations of their own."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from advkit.core import rng
from advkit.core.threat import Threat
from advkit.training.objective import Batch
from advkit.training.objectives import adversarial
from advkit.training.objectives.adversarial import LEAST, boosted, divergences, moved
from advkit.training.objectives.smoothing import differences, unlikely

THREAT = Threat("linf", 0.1)


def batch_of(data, n=16, step=5, steps=10):
    x, y = data.batch(torch.arange(n))
    return x, y, Batch(data.ids[:n], step, steps, seed=3, threat=THREAT)


@pytest.fixture
def standing(monkeypatch):
    """An attacker that leaves the images where they are, but for a shift that all share."""
    monkeypatch.setattr(adversarial, "fixed", lambda model, x, y, **rest: (x + 0.05).clamp(0, 1))


def logits_of(model, x):
    with torch.no_grad():
        return model(x).tolist(), model((x + 0.05).clamp(0, 1)).tolist()


def softmax(row):
    top = [math.exp(value - max(row)) for value in row]
    return [value / sum(top) for value in top]


def kl(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def test_pgd_and_fgsm_are_weighted_cross_entropies_of_worse_images(make, objective, digits):
    model, (x, y, batch) = make(), batch_of(digits)
    wanted = objective("pgd", eps_warmup=0, clean_weight=0.25)
    clean, worse = (cross_entropy(model(at), y) for at in (x, wanted.examples(model, x, y, batch)))
    loss, logits = wanted.loss(model, x, y, batch)
    assert loss.item() == pytest.approx(0.25 * clean.item() + 0.75 * worse.item(), rel=1e-5) and clean < worse
    assert cross_entropy(logits, y) == worse
    fast = objective("fgsm", eps_warmup=0).examples(model, x, y, batch)
    change = (fast - x).abs()
    free = (fast > 0) & (fast < 1)  # a step of 1.25 eps from inside crosses the ball in most places
    assert change.max() <= 0.1 + 1e-6 and (change[free] > 0.0999).float().mean() > 0.5


def test_trades_is_clean_cross_entropy_and_a_divergence(make, objective, digits, standing):
    model, (x, y, batch) = make(), batch_of(digits)
    clean, moved_logits = logits_of(model, x)
    expected = 0.0
    for row, other, label in zip(clean, moved_logits, y.tolist(), strict=True):
        p, q = softmax(row), softmax(other)
        expected += (-math.log(p[label]) + 6 * kl(p, q)) / 16
    loss, logits = objective("trades").loss(model, x, y, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert logits.tolist() == moved_logits  # shown is the accuracy under attack
    half, _ = objective("trades", beta=12, beta_warmup=1).loss(model, x, y, replace(batch, step=4))
    assert half.item() == pytest.approx(loss.item(), rel=1e-6)


def test_the_attacker_of_trades_climbs_the_divergence(make, objective, digits):
    model, (x, y, batch) = make().eval(), batch_of(digits)
    wanted = [objective(name, eps_warmup=0, steps=20) for name in ("trades", "mart")]
    far, near = (one.examples(model, x, y, batch) for one in wanted)
    with torch.no_grad():
        clean, far, near = model(x), model(far), model(near)
    assert divergences(clean, far).mean() > divergences(clean, near).mean()
    assert cross_entropy(far, y) < cross_entropy(near, y)


def test_mart_boosts_and_weighs(make, objective, digits, standing):
    model, (x, y, batch) = make(), batch_of(digits)
    clean, moved_logits = logits_of(model, x)
    expected = 0.0
    for row, other, label in zip(clean, moved_logits, y.tolist(), strict=True):
        p, q = softmax(row), softmax(other)
        rival = max(value for k, value in enumerate(q) if k != label)
        expected += (-math.log(q[label]) - math.log(1 - rival + LEAST) + 5 * kl(p, q) * (1 - p[label])) / 16
    loss, _ = objective("mart").loss(model, x, y, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_boosted_cross_entropy_stays_finite_where_the_model_is_sure_and_wrong():
    logits = torch.tensor([[0.0, 80.0, 0.0]], requires_grad=True)
    boosted(logits, torch.tensor([0])).sum().backward()
    assert logits.grad.isfinite().all()


def test_differences_of_noisy_answers():
    rows = [[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]]
    p, q = softmax(rows[0]), softmax(rows[1])
    mean = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    apart, entropy = differences(torch.tensor(rows)[:, None])
    assert apart.item() == pytest.approx((kl(mean, p) + kl(mean, q)) / 2, rel=1e-5)
    assert entropy.item() == pytest.approx(-sum(a * math.log(a) for a in mean), rel=1e-5)


def test_the_smoothed_answer_is_the_mean_of_the_copies_answers():
    rows = [[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]]
    mean = (softmax(rows[0])[1] + softmax(rows[1])[1]) / 2
    found = unlikely(torch.tensor(rows)[:, None], torch.tensor([1]))
    assert found.item() == pytest.approx(-math.log(mean), rel=1e-5)


def test_the_smoothed_classifier_is_attacked_inside_the_radius(make, objective, digits):
    model, (x, y, batch) = make(), batch_of(digits)
    wanted = objective("smooth-adv", sigma="1/4", copies=2, radius=0.5, steps=3, radius_warmup=0)
    noise, threat = wanted.noise(x, batch), Threat("l2", 0.5)
    moved = wanted.moved(model, x, noise, y, threat)
    assert threat.contains(moved, x).all() and threat.distance(moved, x).min() > 0.3

    def doubt(at):
        return unlikely(model(at.repeat(2, 1, 1, 1) + noise).view(2, len(x), -1), y)

    aside = threat.project(x + 0.5 * threat.ascent(rng.normal(torch.arange(len(x)), x.shape[1:])), x)
    assert (doubt(moved) > doubt(x)).all() and doubt(moved).mean() > doubt(aside).mean()


@pytest.mark.parametrize("step", [0, 3, 6, 9])
def test_the_radius_of_smoothed_attacks_grows(step, make, objective, digits, monkeypatch):
    x, y, batch = batch_of(digits)
    wanted, radii = objective("smooth-adv", sigma="1/4", radius=0.5, radius_warmup=0.5), []
    monkeypatch.setattr(type(wanted), "moved", lambda *asked: radii.append(asked[-1].eps) or x)
    wanted.loss(make(), x, y, replace(batch, step=step, steps=10))
    assert radii == [pytest.approx(0.5 * min(1, (step + 1) / 5))]


def test_noise_is_gaussian_of_the_given_size_and_another_in_every_copy_and_update(objective, digits):
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.flatten(1)[:, :10]

    x, y, batch = batch_of(digits)
    wanted = objective("noise", sigma="1/2", copies=2)
    for step in (0, 1):
        wanted.loss(Spy(), x, y, replace(batch, step=step))
    noise = torch.stack([part - x for made in seen for part in made.chunk(2)])
    assert noise.std().item() == pytest.approx(0.5, rel=0.05) and abs(noise.mean().item()) < 0.02
    correlation = torch.corrcoef(noise.flatten(1)) - torch.eye(4)
    assert correlation.abs().max() < 0.12


def test_weights_move_by_a_share_of_their_length_and_come_back(make, digits):
    model, (x, y, _) = make("small-cnn").train(), batch_of(digits)
    before = {name: value.clone() for name, value in model.named_parameters()}
    value = cross_entropy(model(x), y)
    slopes = dict(zip(before, torch.autograd.grad(value, list(model.parameters())), strict=True))
    with moved(model, lambda: (cross_entropy(model(x), y), model(x)), 0.01) as (loss, logits):
        for name, weight in model.named_parameters():
            change = weight.detach() - before[name]
            if weight.dim() > 1:
                ratio = change.norm() / before[name].norm()
                assert ratio.item() == pytest.approx(0.01, rel=1e-3)
                along = torch.cosine_similarity(change.flatten(), slopes[name].flatten(), dim=0)
                assert along.item() == pytest.approx(1, abs=1e-3)
            else:
                assert not change.any()
        assert cross_entropy(model(x), y) > loss
    assert loss.item() == pytest.approx(value.item()) and logits.shape == (16, 10)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert all(value.grad is None for value in model.parameters())


def test_running_statistics_are_those_of_one_pass(digits, objective):
    def network():
        torch.manual_seed(0)
        layers = torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 10)
        return torch.nn.Sequential(torch.nn.Flatten(), *layers).train()

    x, y, batch = batch_of(digits)
    found = []
    for awp in (0.0, 0.01):
        model = network()
        objective("pgd", awp=awp, steps=1).gradients(model, x, y, batch)
        found.append([value.clone() for value in model.buffers()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_the_perturbation_of_free_training_carries_over(make, objective, digits):
    model, (x, y, batch) = make(), batch_of(digits)
    wanted = objective("free", eps_warmup=0)
    start, _ = objective("standard").loss(model, x, y, batch)
    losses = []
    for step in range(4):
        losses.append(wanted.gradients(model, x, y, replace(batch, step=step))[0])
        (kept,) = batch.memory.values()
        assert THREAT.contains(x + kept, x).all() and not kept.requires_grad
    assert losses[0] == start  # it begins at the images themselves
    assert losses[1] > losses[0] and losses[3] >= losses[1]
    other, labels = digits.batch(torch.arange(16, 32))
    carried, _ = wanted.loss(model, other, labels, batch)
    fresh, _ = wanted.loss(model, other, labels, replace(batch, memory={}))
    assert carried != fresh


def test_free_training_moves_a_hundredth_of_the_values_in_l1(objective):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(400, 3))
    batch = Batch(torch.arange(2), 5, 10, seed=3, threat=Threat("l1", 1.0))
    x, y = torch.full((2, 1, 20, 20), 0.5), torch.tensor([0, 1])
    objective("free", eps_warmup=0).gradients(network, x, y, batch)
    (kept,) = batch.memory.values()
    assert kept.flatten(1).count_nonzero(1).tolist() == [4, 4]


def test_one_backward_pass_leaves_free_training_the_same_gradients(make, objective, digits):
    one, other, (x, y, batch) = make(), make(), batch_of(digits)
    objective("free").gradients(one, x, y, batch)
    objective("standard").gradients(other, x, y, batch)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


@pytest.mark.parametrize("name", ["standard", "noise", "smooth-adv", "free", "pgd", "fgsm", "trades"])
def test_smooth_labels_are_never_fitted_wholly(name, make, objective, digits):
    model, (x, y, batch) = make(), batch_of(digits)
    model.network.layers[-1].weight.data.zero_()
    model.network.layers[-1].bias.data = 50 * torch.nn.functional.one_hot(y[0], 10).float()
    few = replace(batch, ids=batch.ids[:1])
    plain, _ = objective(name).loss(model, x[:1], y[:1], few)
    smooth, _ = objective(name, label_smoothing="1/10").loss(model, x[:1], y[:1], few)
    assert plain < 1e-6 and smooth.item() == pytest.approx(0.1 * 0.9 * 50, rel=1e-3)
