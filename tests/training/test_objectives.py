"""Every registered objective, and what is particular to some."""

import random

import numpy as np
import pytest
import torch

from advkit.threat import Threat
from advkit.training.objective import OBJECTIVES, Batch
from advkit.training.objectives import pgd

NAMES = [entry.name for entry in OBJECTIVES]
THREAT = Threat("linf", 0.1)


def batch_of(data, n=16, step=5, steps=10):
    x, y = data.batch(torch.arange(n))
    return x, y, Batch(data.ids[:n], step, steps, seed=3, threat=THREAT)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name):
    entry = OBJECTIVES.entry(name)
    assert entry.summary and entry.source


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_all_parameters_and_descending_them_lowers_the_loss(name, make, objective, digits):
    model, wanted = make().train(), objective(name)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss, logits = wanted.gradients(model, *batch_of(digits))
        assert loss.shape == () and loss.isfinite() and not loss.requires_grad
        assert logits.shape == (16, 10) and not logits.requires_grad
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
        losses.append(loss.item())
        optimiser.step()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_function_of_the_batch_and_leaves_everything_else_alone(name, make, objective, digits):
    model, wanted = make().train(), objective(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x, y, batch = batch_of(digits)
    pixels = x.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first, _ = wanted.gradients(model, x, y, batch)
    again, _ = wanted.gradients(model, x, y, batch)
    assert torch.equal(first, again)
    assert torch.equal(x, pixels)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(states[0], after[0]) and states[1:] == after[1:]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_costs(name, make, objective, digits):
    model, wanted = make(), objective(name)
    seen = {"forwards": 0, "backwards": 0}

    def count(module, args, logits):
        seen["forwards"] += len(logits)
        if logits.requires_grad:
            logits.register_hook(lambda grad: seen.update(backwards=seen["backwards"] + len(grad)))

    model.register_forward_hook(count)
    wanted.gradients(model, *batch_of(digits))
    assert seen == {"forwards": 16 * wanted.passes.forwards, "backwards": 16 * wanted.passes.backwards}


def test_pgd_on_clean_images_alone_is_standard_training(make, objective, digits):
    model, (x, y, batch) = make(), batch_of(digits)
    clean, _ = objective("pgd", clean_weight=1).loss(model, x, y, batch)
    standard, _ = objective("standard").loss(model, x, y, batch)
    assert clean.item() == pytest.approx(standard.item())


def test_pgd_trains_on_worse_images(make, objective, digits):
    model, (x, y, batch) = make(), batch_of(digits)
    adversarial, _ = objective("pgd", eps_warmup=0).loss(model, x, y, batch)
    mixed, _ = objective("pgd", eps_warmup=0, clean_weight=0.5).loss(model, x, y, batch)
    standard, _ = objective("standard").loss(model, x, y, batch)
    assert standard < mixed < adversarial


def test_the_attack_starts_elsewhere_in_every_update(make, objective, digits):
    model, wanted = make(), objective("pgd", eps_warmup=0, step_size=1e-6)
    losses = {wanted.loss(model, *batch_of(digits, step=step))[0].item() for step in range(3)}
    assert len(losses) == 3


def test_the_budget_grows_over_the_warm_up(make, objective, digits, monkeypatch):
    budgets, sizes = [], []

    def spy(model, x, y, *, threat, parameters, **rest):
        budgets.append(threat.eps)
        sizes.append(parameters["step_size"])
        return x

    monkeypatch.setattr(pgd, "fixed", spy)
    wanted = objective("pgd", eps_warmup=0.5, step_size="1/100")
    for step in range(8):
        wanted.loss(make(), *batch_of(digits, step=step, steps=8))
    assert budgets == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert sizes == pytest.approx([eps / 10 for eps in budgets])


def test_smooth_labels_are_never_fitted_wholly(make, objective, digits):
    model, (x, y, batch) = make(), batch_of(digits)
    model.network.layers[-1].weight.data.zero_()
    model.network.layers[-1].bias.data = 50 * torch.nn.functional.one_hot(y[0], 10).float()
    plain, _ = objective("standard").loss(model, x[:1], y[:1], batch)
    smooth, _ = objective("standard", label_smoothing="1/10").loss(model, x[:1], y[:1], batch)
    assert plain < 1e-6 and smooth.item() == pytest.approx(0.1 * 0.9 * 50, rel=1e-3)
