"""Every registered attack, in every norm that it works in."""

import pytest
import torch

from advkit.attacks.attack import ATTACKS
from advkit.attacks.perturb import fixed, make, perturb, robust_correct
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat

EPS = {"linf": 0.05, "l2": 0.5, "l1": 3.0, "l0": 6}
SHORT = {"steps": 5, "draws": 4, "queries": 5, "ascents": 5, "length": 2, "pool": 2}
SWEEP = [(entry.name, norm) for entry in ATTACKS for norm in entry.thing.norms]


def short(name):
    return {key: value for key, value in SHORT.items() if key in ATTACKS.get(name).Config.model_fields}


@pytest.mark.parametrize(("name", "norm"), SWEEP)
class TestEveryAttack:
    def test_stays_inside_the_threat_model_and_leaves_all_else_as_it_was(self, name, norm, convolutional):
        model, data = convolutional
        model.train()
        model[1].eval()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        modes, state = [module.training for module in model.modules()], torch.get_rng_state()
        threat, given = Threat(norm, EPS[norm]), {"parameters": short(name), "seed": 1}
        x = perturb(model, data.images, data.labels, threat, name, **given).x
        assert threat.contains(x, data.images).all()
        assert not torch.equal(x, data.images)
        assert torch.equal(x, perturb(model, data.images, data.labels, threat, name, **given).x)
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert torch.equal(torch.get_rng_state(), state)

    def test_same_for_any_batch_size_and_in_a_subset(self, name, norm, convolutional):
        model, data = convolutional
        threat, some, given = Threat(norm, EPS[norm]), torch.tensor([3, 11, 20]), {"parameters": short(name)}
        verdicts = [
            robust_correct(model, data, threat, name, batch_size=size, **given)[1].tolist()
            for size in (1, 7, 100)
        ]
        assert verdicts[0] == verdicts[1] == verdicts[2]
        part = robust_correct(model, data.take(some), threat, name, **given)[1]
        assert part.tolist() == torch.tensor(verdicts[0])[some].tolist()

    def test_fixed_steps_cost_what_they_say(self, name, norm, convolutional):
        model, data = convolutional
        calls, threat, parameters = [], Threat(norm, EPS[norm]), short(name)
        model.register_forward_hook(lambda *_: calls.append(1))
        given = {"threat": threat, "attack": name, "parameters": parameters, "ids": data.ids, "seed": 0}
        x = fixed(model, data.images, data.labels, **given)
        assert len(calls) == make(name, threat, parameters).steps
        assert threat.contains(x, data.images).all()


GRADIENT = ["apgd", "apgd-ce", "apgd-dlr", "apgd-t", "fgsm", "pgd"]
GRADIENT += ["di-fgsm", "mi-fgsm", "ni-fgsm", "r-fgsm", "ti-fgsm"]


@pytest.mark.parametrize(
    ("name", "threat", "least"),
    [
        *((name, Threat("linf", 0.25), 0.7) for name in GRADIENT),
        *((name, Threat("l1", 10.0), 0.9) for name in ("pgd", "apgd-ce")),
    ],
)
def test_a_target_is_climbed_toward(convolutional, name, threat, least):
    model, data = convolutional
    target = (data.labels + 1) % 5

    def reached(search_target):
        x = perturb(model, data.images, data.labels, threat, name, target=search_target).x
        assert threat.contains(x, data.images).all()
        return float((model(x).argmax(1) == target).float().mean())

    assert reached(target) > max(least, 2 * reached(None))


@pytest.mark.parametrize("name", [entry.name for entry in ATTACKS])
def test_other_norms_are_refused_in_one_sentence(name, convolutional):
    model, data = convolutional
    for norm in set(EPS) - set(ATTACKS.get(name).norms):
        with pytest.raises(ConfigError):
            perturb(model, data.images, data.labels, Threat(norm, EPS[norm]), name)


def test_every_attack_says_where_it_comes_from():
    assert all(entry.summary and entry.source for entry in ATTACKS)
