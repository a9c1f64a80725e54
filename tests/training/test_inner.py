"""The attacker inside an objective: who it may be, how eps grows, and the worst of several."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from advkit.attacks.attack import ATTACKS
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.training.objective import Batch
from advkit.training.objectives import adversarial

THREAT = Threat("linf", 0.1)


def batch_of(data, n=16, step=5, steps=10):
    x, y = data.batch(torch.arange(n))
    return x, y, Batch(data.ids[:n], step, steps, seed=3, threat=THREAT)


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

    monkeypatch.setattr(adversarial, "fixed", spy)
    wanted = objective("pgd", eps_warmup=0.5, step_size="1/100")
    for step in range(8):
        wanted.loss(make(), *batch_of(digits, step=step, steps=8))
    assert budgets == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert sizes == pytest.approx([eps / 10 for eps in budgets])


def admissible():
    for entry in ATTACKS:
        kind = ATTACKS.get(entry.name)
        if kind.access == "gradients" and not kind.minimal and not kind.single_image:
            fields = kind.Config.model_fields
            if "targets" not in fields or entry.name == "apgd":
                yield entry.name


@pytest.mark.parametrize("name", admissible())
def test_any_attack_of_fixed_steps_up_a_gradient_serves(name, make, objective, digits):
    model, (x, y, batch) = make(), batch_of(digits)
    few = {"attacker": {"ascents": 2}} if name == "memetic" else {}
    wanted = objective("trades", attack=name, eps_warmup=0, **few)
    examples = wanted.examples(model, x, y, batch)
    assert THREAT.contains(examples, x).all() and not torch.equal(examples, x)
    assert wanted.passes.backwards == wanted.inner.backwards + 2


@pytest.mark.parametrize(
    "parameters",
    [
        *({"attack": attack} for attack in ("pdg", "square", "noise", "fab", "cw", "apgd-t")),
        {"attacker": {"restarts": 3}},
        {"attacker": {"sample": 3}},
        {"attacker": {"loss": "cee"}},
        {"attack": "fgsm", "steps": 3},
        {"attack": "apgd", "step_size": 0.1},
    ],
    ids=str,
)
def test_attackers_that_cannot_train(parameters, objective):
    with pytest.raises(ConfigError):
        objective("pgd", **parameters)


def test_averaged_gradients_cost_what_they_cost(objective):
    assert objective("pgd", steps=3, attacker={"samples": 4}).passes == (13, 13)


def test_of_several_examples_the_worst_counts(make, objective, digits):
    model, (x, y, batch) = make().eval(), batch_of(digits)
    others = (Threat("l2", 0.8), Threat("l1", 4.0))
    wanted = objective("pgd", eps_warmup=0, steps=3)
    each = [wanted.examples(model, x, y, Batch(batch.ids, 5, 10, 3, threat=one)) for one in (THREAT, *others)]
    worst = wanted.examples(model, x, y, Batch(batch.ids, 5, 10, 3, threat=THREAT, others=others))
    with torch.no_grad():
        reached = torch.stack([cross_entropy(model(made), y, reduction="none") for made in each])
        found = cross_entropy(model(worst), y, reduction="none")
    assert torch.allclose(found, reached.amax(0))
    assert len(reached.argmax(0).unique()) > 1  # the budgets are such that more than one norm wins
