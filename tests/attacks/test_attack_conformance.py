"""Every registered attack, in every norm that it works in."""

import pytest
import torch

from advkit.attacks.attack import ATTACKS
from advkit.attacks.perturb import fixed, perturb, robust_correct
from advkit.core.errors import ConfigError
from advkit.core.threat import Threat

EPS = {"linf": 0.05, "l2": 0.5, "l1": 3.0, "l0": 6}
SHORT = {"steps": 5, "draws": 4, "queries": 5}
SWEEP = [(entry.name, norm) for entry in ATTACKS for norm in entry.thing.norms]


def short(name):
    return {key: value for key, value in SHORT.items() if key in ATTACKS.get(name).Config.model_fields}


@pytest.mark.parametrize(("name", "norm"), SWEEP)
class TestEveryAttack:
    def test_stays_inside_the_threat_model(self, name, norm, convolutional):
        model, data = convolutional
        threat = Threat(norm, EPS[norm])
        x = perturb(model, data.images, data.labels, threat, name, parameters=short(name)).x
        assert threat.contains(x, data.images).all()
        assert not torch.equal(x, data.images)

    def test_same_for_any_batch_size(self, name, norm, convolutional):
        model, data = convolutional
        threat = Threat(norm, EPS[norm])
        verdicts = [
            robust_correct(model, data, threat, name, parameters=short(name), batch_size=size)[1].tolist()
            for size in (1, 7, 100)
        ]
        assert verdicts[0] == verdicts[1] == verdicts[2]

    def test_a_subset_gets_the_verdicts_of_the_whole(self, name, norm, convolutional):
        model, data = convolutional
        threat = Threat(norm, EPS[norm])
        some = torch.tensor([3, 11, 20])
        whole = robust_correct(model, data, threat, name, parameters=short(name))[1]
        part = robust_correct(model, data.take(some), threat, name, parameters=short(name))[1]
        assert part.tolist() == whole[some].tolist()

    def test_leaves_the_model_and_the_global_generator_as_they_were(self, name, norm, convolutional):
        model, data = convolutional
        model.train()
        model[1].eval()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        state = torch.get_rng_state()
        perturb(model, data.images, data.labels, Threat(norm, EPS[norm]), name, parameters=short(name))
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert torch.equal(torch.get_rng_state(), state)

    def test_seed_decides(self, name, norm, convolutional):
        model, data = convolutional
        threat = Threat(norm, EPS[norm])

        def run(seed):
            return perturb(model, data.images, data.labels, threat, name, parameters=short(name), seed=seed).x

        assert torch.equal(run(1), run(1))

    def test_fixed_steps_cost_what_they_say(self, name, norm, convolutional):
        model, data = convolutional
        calls = []
        model.register_forward_hook(lambda *_: calls.append(1))
        parameters = short(name)
        threat = Threat(norm, EPS[norm])
        x = fixed(
            model,
            data.images,
            data.labels,
            threat=threat,
            attack=name,
            parameters=parameters,
            ids=data.ids,
            seed=0,
        )
        made = ATTACKS.get(name)(ATTACKS.get(name).Config(**parameters), threat)
        assert len(calls) == made.steps
        assert threat.contains(x, data.images).all()


@pytest.mark.parametrize("name", [entry.name for entry in ATTACKS])
def test_other_norms_are_refused_in_one_sentence(name, convolutional):
    model, data = convolutional
    for norm in set(EPS) - set(ATTACKS.get(name).norms):
        with pytest.raises(ConfigError):
            perturb(model, data.images, data.labels, Threat(norm, EPS[norm]), name)


def test_every_attack_says_where_it_comes_from():
    assert all(entry.summary and entry.source for entry in ATTACKS)
