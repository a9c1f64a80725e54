"""Certified objectives beside small computations of their own, and beside the proofs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from advkit.core.errors import ConfigError, ModelError
from advkit.core.threat import Threat
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.training.objective import Batch
from advkit.training.objectives.certified import bounded, margins_by_lines, passed
from advkit.training.precision import Bfloat16
from advkit.verify.bounds.ball import Ball
from advkit.verify.bounds.linear import Bounder
from advkit.verify.bounds.read import read


def worst(model, x, eps, y):
    return bounded(model).worst(x, eps, y)


THREAT = Threat("linf", 0.05)


def batch_of(data, n=16, step=9, steps=10):
    x, y = data.batch(torch.arange(n))
    return x, y, Batch(data.ids[:n], step, steps, seed=3, threat=THREAT)


def proved(model, x, y, method):
    """Margins (N, K) of the certificates' own float64 bounds."""
    bounder = Bounder(read(model), torch.device("cpu"))
    bounds = getattr(bounder, method)(Ball(x, THREAT))
    return bounder.margins(bounds, y).float()


def test_worst_logits_are_no_better_than_any_in_the_box(make, digits):
    model, (x, y, _) = make("small-cnn").eval(), batch_of(digits)
    found = worst(model, x, 0.05, y)
    assert found.gather(1, y[:, None]).abs().max() == 0
    for sign in torch.randn(20, *x.shape, generator=torch.Generator().manual_seed(0)).sign():
        logits = model((x + 0.05 * sign).clamp(0, 1))
        assert (logits - logits.gather(1, y[:, None]) <= found + 1e-5).all()


def test_at_eps_0_they_are_the_model_s_own(make, digits):
    model, (x, y, _) = make("small-cnn").eval(), batch_of(digits)
    logits = model(x)
    assert torch.allclose(worst(model, x, 0.0, y), logits - logits.gather(1, y[:, None]), atol=1e-5)
    low = worst(Bfloat16(model), x, 0.0, y)
    assert low.dtype == torch.float32 and torch.allclose(low, worst(model, x, 0.0, y), atol=0.02)


def test_lines_are_those_of_the_certificates_over_intervals(make, digits):
    model, (x, y, _) = make(hidden=(16,)).eval(), batch_of(digits)
    lines = margins_by_lines(read(model), *bounded(model).ends(x, THREAT.eps), Ball(x, THREAT), y)
    assert torch.allclose(lines, proved(model, x, y, "linear"), atol=1e-4)  # one layer: intervals are exact
    assert (lines >= -worst(model, x, THREAT.eps, y) - 1e-5).float().mean() > 0.9


@pytest.mark.parametrize("name", ["ibp", "crown-ibp"])
def test_clean_images_are_all_at_first_and_their_share_at_the_end(name, make, objective, digits):
    model, (x, y, last) = make("small-cnn"), batch_of(digits)
    wanted = objective(name, clean_weight=0.25, eps_warmup=0.5)
    clean, bound = cross_entropy(model(x), y), cross_entropy(worst(model, x, 0.05, y), y)
    assert wanted.loss(model, x, y, last)[0].item() == pytest.approx(
        0.25 * clean.item() + 0.75 * bound.item()
    )
    _, _, first = batch_of(digits, step=0, steps=10**6)
    assert wanted.loss(model, x, y, first)[0].item() == pytest.approx(clean.item(), rel=1e-3)


def test_eps_in_training_may_exceed_the_one_asked_for(make, objective, digits):
    model, (x, y, last) = make("small-cnn"), batch_of(digits)
    wanted = objective("ibp", clean_weight=0, eps_scale=2)
    assert wanted.loss(model, x, y, last)[0] == cross_entropy(worst(model, x, 0.1, y), y)
    assert wanted.eps(replace(last, threat=Threat("linf", 0.7))) == 1
    assert torch.equal(wanted.measure(model, x, y, last), (worst(model, x, 0.05, y).argmax(1) == y).float())


def test_lines_are_given_up_as_eps_grows(make, objective, digits):
    model, (x, y, last) = make("small-cnn"), batch_of(digits)
    ibp, crown = objective("ibp", eps_warmup=0.95), objective("crown-ibp", eps_warmup=0.95)
    middle = Batch(last.ids, 4, 10, seed=3, threat=THREAT)
    assert crown.loss(model, x, y, middle)[0] < ibp.loss(model, x, y, middle)[0]
    assert crown.loss(model, x, y, last)[0] == ibp.loss(model, x, y, last)[0]


@pytest.mark.parametrize("arch", ["strided-cnn", "resnet18-cifar"])
def test_bounds_take_the_statistics_of_the_clean_images(arch, make, digits):
    model, (x, y, _) = make(arch, width=4).train(), batch_of(digits)
    logits, seen = passed(model, x)
    assert torch.allclose(seen.graph.forward(x), logits, atol=1e-4)
    tight = seen.worst(x, 0.0, y)
    assert torch.allclose(tight, logits - logits.gather(1, y[:, None]), atol=1e-3)
    seen.worst(x, 0.01, y).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.dim() > 1)
    model.eval()
    logits, seen = passed(model, x)
    assert torch.allclose(logits, model(x)) and torch.allclose(seen.graph.forward(x), logits, atol=1e-4)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_bounded_is_refused(objective, digits):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(64, 10)

        def forward(self, x):
            return self.last(x.flatten(1).exp())

    card = ModelCard(role="classifier", architecture="odd", shape=(1, 8, 8), classes=10)
    x, y, batch = batch_of(digits)
    with pytest.raises(ModelError, match="exp"):
        objective("ibp").loss(Model(Odd(), card), x, y, batch)
    with pytest.raises(ConfigError):
        objective("ibp").refuse(Threat("l2", 1))


def test_a_small_box_is_inside_the_ball_and_no_better_than_its_middle(make, objective, digits):
    model, (x, y, last) = make("small-cnn"), batch_of(digits)

    def loss(name, **parameters):
        return objective(name, **parameters).loss(model, x, y, last)[0].item()

    losses = [loss("small-box", share=share) for share in (0.001, 0.3, 0.6, 0.999)]
    assert losses == sorted(losses) and losses[-1] == pytest.approx(loss("ibp", clean_weight=0), rel=1e-2)
    assert losses[0] == pytest.approx(loss("pgd", steps=8, eps_warmup=0), rel=1e-2)


def test_expressive_losses_lie_between_pgd_and_bounds(make, objective, digits):
    model, (x, y, last) = make("small-cnn"), batch_of(digits)

    def loss(name, **parameters):
        return objective(name, **parameters).loss(model, x, y, last)[0].item()

    ends = loss("pgd", steps=8, eps_warmup=0), loss("ibp", clean_weight=0)
    for name in ("mtl-ibp", "cc-ibp", "exp-ibp"):
        losses = [loss(name, bound_weight=weight) for weight in (0.001, 0.3, 0.6, 0.999)]
        assert losses == sorted(losses) and (losses[0], losses[-1]) == pytest.approx(ends, rel=1e-2), name
    # cross-entropy is convex in the logits, and a geometric mean is below the arithmetic one
    for weight in (0.1, 0.5, 0.9):
        assert loss("cc-ibp", bound_weight=weight) < loss("mtl-ibp", bound_weight=weight)
        assert loss("exp-ibp", bound_weight=weight) < loss("mtl-ibp", bound_weight=weight)
    assert loss("mtl-ibp", bound_weight=0.3) == pytest.approx(0.7 * ends[0] + 0.3 * ends[1], rel=1e-2)
