"""Every registered objective is swept; formulas stand in test_formulas.py."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from advkit.core.config import validate
from advkit.core.errors import ConfigError
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.training import several
from advkit.training.loop import fit
from advkit.training.objective import OBJECTIVES, Batch
from advkit.training.precision import Bfloat16
from advkit.training.settings import Fitting

NAMES = [entry.name for entry in OBJECTIVES]
THREAT = Threat("linf", 0.1)
OTHERS = [Threat("l2", 0.8), Threat("l1", 4.0)]
VARIANTS = [
    *((name, {}) for name in NAMES),
    ("pgd", {"clean_weight": 0.5, "label_smoothing": 0.1, "awp": 0.01}),
    ("pgd", {"attack": "apgd", "steps": 3, "attacker": {"loss": "dlr"}}),
    ("trades", {"attack": "mi-fgsm", "awp": 0.005, "beta_warmup": 1}),
    ("mart", {"awp": 0.005}),
    ("fgsm", {"step": 2, "awp": 0.01}),
    ("advgan", {"updates": 2, "clean_weight": 0, "gan_weight": 0}),
    ("noise", {"copies": 2, "consistency": 10, "consistency_warmup": 0.5}),
    ("smooth-adv", {"copies": 2, "consistency": 5, "radius": 0.5, "steps": 3}),
]
CERTIFIED = ("ibp", "crown-ibp", "small-box", "mtl-ibp", "cc-ibp", "exp-ibp")
REFUSED = {
    ("fgsm", "l1"),
    ("advgan", "l1"),
    *((name, norm) for name in CERTIFIED for norm in ("l2", "l1")),
}
IDS = [f"{name}{i}" for i, (name, _) in enumerate(VARIANTS)]


def batch_of(data, n=16, step=5, steps=10, threat=THREAT):
    x, y = data.batch(torch.arange(n))
    return x, y, Batch(data.ids[:n], step, steps, seed=3, threat=threat)


def descend(model, wanted, data, threat=THREAT, updates=15):
    """Losses of plain descent on one batch, with every gradient looked at."""
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for step in range(updates):
        optimiser.zero_grad()
        loss, logits = wanted.gradients(
            model, *batch_of(data, threat=threat, step=updates + step, steps=updates)
        )
        assert loss.shape == () and loss.isfinite() and not loss.requires_grad
        assert logits.shape == (16, 10) and not logits.requires_grad
        for parameter in model.parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all()
            assert parameter.grad.dtype == torch.float32 and parameter.grad.abs().sum() > 0
        losses.append(loss.item())
        optimiser.step()
    return losses


def test_what_the_parameters_ask_for():
    with pytest.raises(ConfigError):
        validate(OBJECTIVES.get("noise").Config, {"consistency": 1, "copies": 1}, "noise")
    needy = {name for name in NAMES if OBJECTIVES.get(name).needs_threat}
    assert set(NAMES) - needy == {"standard", "noise", "smooth-adv", "augmix"}


@pytest.mark.parametrize(("name", "parameters"), VARIANTS, ids=IDS)
def test_gradients_reach_all_parameters_and_descending_them_lowers_the_loss(
    name, parameters, make, objective, digits
):
    losses = descend(make().train(), objective(name, **parameters), digits)
    assert sum(losses[-3:]) < sum(losses[:3])


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_in_bfloat16_over_weights_in_float32(name, make, objective, digits):
    model = make("small-cnn").train()
    losses = descend(Bfloat16(model), objective(name, **({"awp": 0.01} if name == "trades" else {})), digits)
    assert sum(losses[-3:]) < sum(losses[:3])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "threat"),
    [(name, threat) for name in NAMES for threat in OTHERS if OBJECTIVES.get(name).needs_threat],
    ids=str,
)
def test_other_norms_work_or_are_refused(name, threat, make, objective, digits):
    wanted = objective(name)
    if (name, threat.norm) in REFUSED:
        with pytest.raises(ConfigError):
            wanted.refuse(threat)
        return
    wanted.refuse(threat)
    losses = descend(make().train(), wanted, digits, threat)
    assert sum(losses[-3:]) < sum(losses[:3])


@pytest.mark.parametrize(("name", "parameters"), VARIANTS, ids=IDS)
def test_it_is_a_function_of_the_batch_and_leaves_everything_else_alone(
    name, parameters, make, objective, digits
):
    model = make("trunk-classifier", trunk="conv-gan-discriminator").train()
    wanted = objective(name, **parameters)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    (x, y, batch), (_, _, again) = batch_of(digits), batch_of(digits)
    pixels = x.clone()
    states = random.getstate(), np.random.get_state()[1].tolist()
    told = []
    for one in (batch, again):
        torch.manual_seed(0)  # dropout, which the loop seeds
        told.append(wanted.gradients(model, x, y, one)[0])
    assert torch.equal(*told)
    assert torch.equal(x, pixels)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert states == (random.getstate(), np.random.get_state()[1].tolist())


def passes_of(model, work):
    """(images forward, images backward) while ``work`` is done."""
    seen = {"forwards": 0, "backwards": 0}

    def count(module, args, logits):
        seen["forwards"] += len(logits)
        if logits.requires_grad:
            logits.register_hook(lambda grad: seen.update(backwards=seen["backwards"] + len(grad)))

    hook = model.register_forward_hook(count)
    work()
    hook.remove()
    return seen["forwards"], seen["backwards"]


@pytest.mark.parametrize(("name", "parameters"), VARIANTS, ids=IDS)
def test_it_says_what_it_costs(name, parameters, make, objective, digits):
    model, wanted = make(), objective(name, **parameters)
    found = passes_of(model, lambda: wanted.gradients(model, *batch_of(digits)))
    told, beside = wanted.passes, wanted.bounding
    assert found == (16 * (told.forwards - beside.forwards), 16 * (told.backwards - beside.backwards))


@pytest.mark.parametrize(
    ("name", "union"),
    [
        *((name, union) for name in ("pgd", "trades") for union in ("max", "average", "random")),
        *(("free", union) for union in ("average", "random")),
    ],
)
def test_several_threat_models_say_what_they_cost(name, union, make, objective, digits):
    model, wanted, threats = make(), objective(name), [THREAT, *OTHERS]
    x, y, batch = batch_of(digits)
    found = passes_of(model, lambda: several.gradients(wanted, model, x, y, batch, threats, union))
    told = several.passes(wanted, 3, union)
    assert found == (16 * told.forwards, 16 * told.backwards)


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    name, make, objective, digits, interrupted, same, tmp_path
):
    config = Fitting(epochs=2, batch_size=10, checks=4, shift=1)
    rest, held = digits.limit(50).holdout(0.2)

    def train(folder, **more):
        wanted = objective(name)
        with RunFolder.open("test", "toy", config, tmp_path / folder) as run:
            return fit(make(), config, rest, held, objective=wanted, threat=THREAT, run=run, **more)

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("cut", progress=interrupted(3))
    resumed = train("cut")
    assert same(whole.model, resumed.model) and same(whole.best, resumed.best)
    assert whole.history == resumed.history
