"""``art:NAME``: attacks of the Adversarial Robustness Toolbox in the place of ours."""

import random
import sys

import numpy as np
import pytest
import torch

import advkit
from advkit.attacks.attack import ATTACKS
from advkit.attacks.perturb import fixed, make, perturb, robust_correct, searching
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat
from advkit.integrations import art_index
from advkit.models.model import evaluation_mode

PGD = "art:ProjectedGradientDescent"
THREAT = Threat("linf", 0.05)


@pytest.mark.parametrize("norm, eps", [("linf", 0.05), ("l2", 0.2)])
def test_its_pgd_breaks_what_ours_breaks(small, norm, eps):
    model, data = small
    threat, steps = Threat(norm, eps), 20
    settings = {"max_iter": steps, "eps_step": 2.5 * eps / steps}
    _, theirs = robust_correct(model, data, threat, PGD, parameters=settings)
    _, ours = robust_correct(model, data, threat, "pgd", parameters={"steps": steps, "start": "original"})
    assert theirs.tolist() == ours.tolist()
    assert 0 < int(ours.sum()) < len(data)


def test_every_pass_is_counted_and_it_ends_at_the_first_success(small):
    model, data = small
    calls, found = [], []
    model[0].register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    attack = make(PGD, THREAT, {"max_iter": 20})
    clean = model(data.images)
    with evaluation_mode(model):
        search = searching(model, data, attack, name=PGD, seed=0, clean=clean, precision="float32")
        calls.clear()
        search.run(torch.arange(len(data)), found.append)
    # Confirming passes are filled up to 16 rows; the oracle counts the rows that were meant.
    assert search.oracle.forwards == sum(call if call < 16 else 1 for call in calls)
    broken, standing = ([f for f in found if f.broken is state] for state in (True, False))
    assert broken and standing
    # The number of classes, 20 steps, what ART asks to know its success, what it returned, to confirm.
    assert {f.backwards for f in standing} == {20}
    assert all(20 < f.forwards <= 26 for f in standing)
    assert all(f.backwards < 20 and f.forwards < 20 for f in broken)


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("art:SquareAttack", {"max_iter": 5}),
        ("art:HopSkipJump", {"max_iter": 1, "init_eval": 5, "max_eval": 5}),
    ],
)
def test_same_for_any_batch_size_and_seed_decides(small, name, parameters):
    model, data = small

    def run(seed=0, size=None, some=data):
        return perturb(
            model, some.images, some.labels, THREAT, name, parameters=parameters, seed=seed, batch_size=size
        ).x

    few = data.limit(4)
    assert torch.equal(run(size=1), run(size=7))
    assert torch.equal(run()[:4], run(some=few))
    assert not torch.equal(run(some=few), run(seed=1, some=few))


def test_leaves_model_and_generators_as_they_were(small):
    model, data = small
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), np.random.RandomState
    x = perturb(
        model, data.images[:3], data.labels[:3], THREAT, "art:HopSkipJump", parameters={"max_iter": 1}
    ).x
    assert THREAT.contains(x, data.images[:3]).all()
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert np.random.RandomState is states[3]


def test_it_aims_where_it_is_told(small):
    model, data = small
    target = (data.labels + 1) % 5
    threat = Threat("linf", 0.3)
    x = perturb(model, data.images, data.labels, threat, PGD, parameters={"max_iter": 10}, target=target).x
    assert (model(x).argmax(1) == target).float().mean() > 0.8
    with pytest.raises(ConfigError, match="art:DeepFool"):
        perturb(model, data.images, data.labels, threat, "art:DeepFool", target=target)


def test_minimum_norm_attacks_keep_the_nearest(small):
    model, data = small
    found = []
    few = data.limit(3)
    # Its default ends a millionth beyond the boundary, where rounding decides on which side.
    attack = make("art:DeepFool", Threat.whole("l2", 64), {"epsilon": 0.02})
    with evaluation_mode(model):
        searching(model, few, attack, name="deepfool", seed=0, nearest=True).run(
            torch.arange(3), found.append
        )
    assert all(f.broken and f.distance < 1 for f in found)


def test_in_an_evaluation(small):
    model, data = small
    result = advkit.evaluate(model, data, THREAT, f"fgsm,{PGD}", parameters={PGD: {"max_iter": 5}}, keep=True)
    first, second = result.stages
    assert second.attack == PGD and second.attacked == first.correct_after
    assert second.parameters["max_iter"] == 5
    assert THREAT.contains(result.adversarial, data.images).all()


def test_training_loops_may_use_it(small):
    model, data = small
    x = fixed(
        model, data.images, data.labels, threat=THREAT, attack="art:FastGradientMethod", ids=data.ids, seed=0
    )
    assert torch.allclose((x - data.images).abs().amax((1, 2, 3)), torch.tensor(0.05))


@pytest.mark.parametrize(
    "name, threat, parameters",
    [
        ("art:HopSkipJmp", THREAT, {}), ("art:DPatch", THREAT, {}), ("art:AdversarialPatch", THREAT, {}),
        (PGD, THREAT, {"max_itr": 3}), (PGD, THREAT, {"max_iter": "many"}), (PGD, THREAT, {"max_iter": -1}),
        (PGD, THREAT, {"targeted": True}), (PGD, Threat("l0", 3), {}),
        ("art:HopSkipJump", Threat("l1", 1), {}),
    ],
)  # fmt: skip
def test_faults_are_told_before_the_work_begins(name, threat, parameters):
    with pytest.raises(ConfigError):
        make(name, threat, parameters)


def test_what_is_not_installed_is_named(small, monkeypatch):
    model, data = small
    monkeypatch.setitem(sys.modules, "multiprocess", None)
    with pytest.raises(ConfigError, match=r"art:AutoAttack cannot run here: .*: pip install multiprocess"):
        perturb(model, data.images, data.labels, THREAT, "art:AutoAttack")


QUICK = {
    "BoundaryAttack": {"max_iter": 2, "num_trial": 2, "sample_size": 2, "init_size": 2},
    "CarliniL0Method": {"max_iter": 1, "binary_search_steps": 1},
    "CarliniL2Method": {"max_iter": 1, "binary_search_steps": 1},
    "CarliniLInfMethod": {"max_iter": 1},
    "ElasticNet": {"max_iter": 1, "binary_search_steps": 1},
    "HopSkipJump": {"max_iter": 1, "init_eval": 2, "max_eval": 2, "init_size": 2},
    "NewtonFool": {"max_iter": 2},
    "PixelAttack": {"max_iter": 1, "th": 1},
    "ShadowAttack": {"nb_steps": 2},
    "SignOPTAttack": {"num_trial": 1, "max_iter": 1, "query_limit": 20},
    "SpatialTransformation": {"max_translation": 10.0},
    "ThresholdAttack": {"max_iter": 1, "th": 1},
    "VirtualAdversarialMethod": {"max_iter": 1},
    "Wasserstein": {"max_iter": 1, "conjugate_sinkhorn_max_iter": 2, "projected_sinkhorn_max_iter": 2}
    | {"regularization": 100.0},
    "ZooAttack": {"max_iter": 1, "binary_search_steps": 1, "use_resize": False, "nb_parallel": 2},
}


# No parameters make these two short: ten attacks in one, and one that numba compiles for minutes.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [name for name in art_index.supported() if name not in ("AutoAttack", "BrendelBethgeAttack")]
)
def test_each_runs_or_says_why_it_cannot(small, name):
    """With few steps, on one image, under a budget that keeps most of them from an early end."""
    model, data = small
    one = data.limit(1)

    def run():
        parameters = QUICK.get(name, {})
        return perturb(
            model, one.images, one.labels, Threat("linf", 1e-4), f"art:{name}", parameters=parameters
        )

    if art_index.cannot_run(name):
        with pytest.raises(ConfigError):
            run()
        assert "cannot run here" in art_index.note(name)
    else:
        assert Threat("linf", 1e-4).contains(run().x, one.images).all()


def test_one_that_queries_while_it_is_made(small):
    """Its first query, of a white image, may be a success already."""
    model, data = small
    name, loss = "art:AutoProjectedGradientDescent", {"loss_type": "difference_logits_ratio"}
    found = perturb(model, data.images, data.labels, Threat("linf", 1), name, parameters=loss)
    assert found.success.any()


def test_the_slow_ones_are_marked():
    for name in art_index.SLOW:
        if not art_index.cannot_run(name):
            assert "slow" in art_index.note(name) and "slow" in make(f"art:{name}", THREAT).cost
    assert not art_index.note("DeepFool") and make("art:DeepFool", THREAT).cost == "unknown"


def test_the_threat_fills_budget_norm_and_step():
    made = make(PGD, Threat("l2", 0.6))
    assert made._settings["norm"] == 2 and made._settings["eps"] == 0.6
    assert made._settings["eps_step"] == pytest.approx(0.2)


def test_names_need_no_import():
    entry = ATTACKS.entry("art:ZooAttack")
    assert entry.source == "arXiv:1708.03999" and "zeroth-order" in entry.summary
    assert entry.thing.Config.model_fields["learning_rate"].default == 0.01
    assert "art:ZooAttack" in ATTACKS and "art:Zoo" not in ATTACKS
    assert not [known.name for known in ATTACKS if known.name.startswith("art:")]
