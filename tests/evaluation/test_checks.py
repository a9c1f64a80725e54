"""Each check on a model that is built to trip it, and all of them on honest ones."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import advkit
from advkit.attacks.attack import ATTACKS
from advkit.attacks.ensemble import ENSEMBLES
from advkit.attacks.perturb import robust_correct
from advkit.errors import ConfigError
from advkit.evaluation.check import CHECKS
from advkit.evaluation.result import EvaluationResult
from advkit.threat import Threat

THREAT = Threat("linf", 0.03)
SHORT = {"pgd": {"steps": 20}, "square": {"queries": 100}, "noise": {"draws": 30}, "fab-t": {"steps": 20}}


class Map(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def short(attack):
    return {name: SHORT[name] for name in attack.split(",") if name in SHORT}


@pytest.fixture
def tried(judged):
    """Evaluates the judged network with something before and after it, on labels of its own."""
    model, data = judged

    def run(attack="pgd", *, before=None, after=None, eps=0.03, **more):
        same = nn.Identity()
        network = nn.Sequential(
            Map(before) if before else same, model.network, Map(after) if after else same
        ).eval()
        with torch.no_grad(), torch.random.fork_rng():
            labels = network(data.images).argmax(1)
        more = {"parameters": short(attack), **more}
        return advkit.evaluate(network, (data.images, labels), Threat("linf", eps), attack, **more)

    return run


def doubts(result):
    return {check.name: check for check in result.checks if check.verdict == "doubt"}


def fourteen_levels(x):
    return (x * 13).round() / 13


def believed(result):
    assert doubts(result) == {}
    assert len(result.checks) >= 11
    assert result.trust.startswith("Believe this number as an upper bound: none of")


@pytest.mark.parametrize("attack", ["pgd", "fab-t", "apgd-dlr,square"])
@pytest.mark.parametrize("threat", [THREAT, Threat("l2", 0.15)], ids=str)
def test_an_honest_model_is_not_doubted(judged, attack, threat):
    """On images that are clearly robust, or clearly not: between them, chance says which start succeeds."""
    model, data = judged

    def correct(factor, name, **parameters):
        wider = Threat(threat.norm, factor * threat.eps)
        return robust_correct(model, data, wider, name, parameters=parameters)[1]

    first = attack.partition(",")[0]
    robust, broken = correct(1.25, "apgd-t"), ~correct(0.8, first, **short(attack).get(first, {}))
    clear = data.take((robust | broken).nonzero()[:, 0])
    result = advkit.evaluate(model, clear, threat, attack, parameters=short(attack))
    assert result.robust_correct == int(robust.sum()) >= 4 and int(broken.sum()) >= 4
    believed(result)


@pytest.mark.skipif(
    not {"ADVKIT_DATA", "ADVKIT_SUBJECTS"} <= os.environ.keys(), reason="set ADVKIT_DATA and ADVKIT_SUBJECTS"
)
def test_a_public_hardened_classifier_is_not_doubted():
    model = advkit.load_model(
        Path(os.environ["ADVKIT_SUBJECTS"]) / "mnist_lenet5_advtrained.pt", shape=(1, 28, 28)
    )
    result = advkit.evaluate(model, "mnist", Threat("linf", 0.3), "pgd", n=32)
    assert result.robust_correct >= 28
    believed(result)


@pytest.mark.parametrize("name", [e.name for e in ATTACKS if e.thing.access == "gradients"])
def test_every_attack_with_gradients_can_be_asked_about(judged, name):
    kind = ATTACKS.get(name)
    few = {key: 3 for key in ("steps", "targets") if key in kind.Config.model_fields}
    threat = Threat(kind.norms[0], {"linf": 0.02, "l2": 0.15, "l1": 0.5, "l0": 1}[kind.norms[0]])
    result = advkit.evaluate(*judged, threat, name, n=8, parameters={name: few})
    assert result.robust_correct > 0
    assert {"gradients", "ascent", "effort", "eps", "unbounded"} <= {check.name for check in result.checks}


def test_where_nothing_stands_there_is_nothing_to_ask(judged):
    result = advkit.evaluate(*judged, Threat("linf", 0.5), "pgd")
    assert result.robust_correct == 0
    assert {check.name for check in result.checks} == {"determinism", "confirmation"}
    assert result.trust.startswith("Believe this number: nothing stands")


def test_rounded_input_cuts_the_gradient(tried):
    result = tried(before=fourteen_levels)
    found = doubts(result)
    assert {"cut-gradient", "gradients", "ascent", "unbounded"} <= found.keys()
    assert "zero at 16 of 16 images" in found["cut-gradient"].detail
    assert "although the answers change, in steps; it ends in layer 0" in found["cut-gradient"].detail
    assert found["cut-gradient"].remedy.endswith(": --bpda 0")
    assert result.trust.startswith("Do not believe this number yet: the gradient is zero at 16 of 16 images")
    assert "--bpda 0." in result.trust


def test_the_remedy_for_a_cut_gradient_removes_the_doubt(tried):
    result = tried(before=fourteen_levels, bpda=["0"])
    assert not {"cut-gradient", "gradients", "ascent", "unbounded"} & doubts(result).keys()
    (check,) = [check for check in result.checks if check.name == "cut-gradient"]
    assert "but the gradient leads across" in check.detail


def test_a_saturated_hidden_layer_is_named(judged):
    _, data = judged
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), Map(lambda h: (1e4 * h).sigmoid()), nn.Linear(32, 4)
    )
    with torch.no_grad():
        labels = layers(data.images).argmax(1)
    result = advkit.evaluate(layers, (data.images, labels), THREAT, "pgd", parameters=short("pgd"))
    assert doubts(result)["cut-gradient"].remedy.endswith(": --bpda 2")


def test_a_saturated_loss_is_told_from_a_dead_model(tried):
    result = tried(after=lambda z: 1e4 * z)
    found = doubts(result)
    assert "cut-gradient" not in found
    assert "while that of the margin lives: ce is saturated" in found["gradients"].detail
    assert found["gradients"].remedy.endswith(": --attack cascade")
    believed(tried("apgd", after=lambda z: 1e4 * z))


class Astray(torch.autograd.Function):
    """The identity, with the gradient of something else."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return (x * 12345.678).sin() * grad.abs().amax()


def test_a_gradient_that_leads_astray(tried):
    found = doubts(tried(before=Astray.apply, eps=0.06))
    assert "do not change as the gradient says" in found["cut-gradient"].detail
    assert "the loss rises along pgd at" in found["ascent"].detail
    assert found["ascent"].remedy.endswith("--attack square --set parameters.square.queries=20000")


def test_who_sees_less_finds_more(tried):
    found = doubts(tried("pgd,square", before=fourteen_levels, eps=0.06))
    assert "fell without any (to square)" in found["black-box"].detail
    assert "black-box" not in doubts(tried("square,pgd", eps=0.06))


def test_random_points_find_what_gradients_do_not(tried):
    found = doubts(tried(before=fourteen_levels, eps=0.08))
    assert "images that stand fall to 8 random points" in found["noise"].detail


def test_accuracy_that_rises_with_eps():
    """One step of the whole eps leaps over the only place where the model is wrong."""

    class Valley(nn.Module):
        def forward(self, x):
            score = (x.flatten(1).mean(1) - 0.55).abs() - 0.02
            return torch.stack([torch.zeros_like(score), score], 1)

    images = torch.full((16, 1, 8, 8), 0.5)
    labels = torch.ones(16, dtype=torch.int64)
    found = doubts(advkit.evaluate(Valley(), (images, labels), Threat("linf", 0.1), "fgsm"))
    assert "stand 0 at 0.5 eps, 8 at 1 eps" in found["eps"].detail
    assert found["eps"].detail.endswith("accuracy rises with eps")


def test_an_attack_that_has_not_converged(tried):
    def wavy(x):
        return x + 0.1 * (100 * x).sin()

    found = doubts(tried("fgsm", before=wavy))
    assert "20 steps of pgd" in found["effort"].detail
    assert found["effort"].remedy == "attack harder: --attack cascade"
    found = doubts(tried("pgd", before=wavy, parameters={"pgd": {"steps": 2}}))
    assert "pgd with 2 steps from another start" in found["effort"].detail


def test_a_number_without_gradients(tried):
    found = doubts(tried("noise"))
    assert "were tried on 0 of the" in found["white-box"].detail
    assert "--attack cascade" in found["white-box"].remedy


@pytest.mark.parametrize(("attack", "classes"), [("apgd-dlr", 2), ("apgd-t", 3)])
def test_too_few_classes_for_the_ratio_of_logits_are_told_before_the_work(tried, attack, classes):
    with pytest.raises(ConfigError, match=f"{attack}: the dlr loss needs {classes + 1} classes"):
        tried(f"pgd,{attack}", after=lambda z: z[:, :classes])


def test_a_budget_that_kept_gradients_away(tried):
    found = doubts(tried("noise,pgd", budget=5))
    assert found["white-box"].remedy == "allow more passes with --budget"


def test_a_randomised_model(tried):
    def shaken(z):
        return z + 0.05 * torch.randn_like(z)

    once = doubts(tried(after=shaken, allow_random=True))["determinism"]
    assert "draws random numbers" in once.detail and "version=rand" in once.remedy
    averaged = tried(
        "apgd", after=shaken, allow_random=True, parameters={"apgd": {"steps": 5, "samples": 10}}
    )
    assert "determinism" not in doubts(averaged)


class Remembering(nn.Module):
    """Answers otherwise after so many passes."""

    def __init__(self, network, passes, after):
        super().__init__()
        self.network, self.left, self.after = network, passes, after

    def forward(self, x):
        self.left -= 1
        return self.network(x) * (1 if self.left > 0 else self.after(self.left))


@pytest.mark.parametrize(
    ("passes", "after", "said"),
    [(1, lambda left: 1 + left % 2, "from pass to pass even"), (6, lambda left: 1.5, "changed by 0.")],
)
def test_a_model_with_a_memory(judged, passes, after, said):
    model, data = judged
    network = Remembering(model.network, passes, after).eval()
    result = advkit.evaluate(network, data, THREAT, "pgd", parameters=short("pgd"), allow_random=passes == 1)
    detail = doubts(result)["determinism"].detail
    assert said in detail and "keeps a state" in detail


def test_rounded_probabilities(judged):
    model, data = judged
    for scale, doubted in ((1, False), (1e5, True)):
        network = nn.Sequential(model.network, Map(lambda z, s=scale: (s * z).softmax(1)))
        probable = advkit.load_model(network, shape=(1, 8, 8), outputs="probabilities")
        result = advkit.evaluate(probable, data, THREAT, "pgd", parameters=short("pgd"))
        assert ("outputs" in doubts(result)) == doubted
    assert "rounded to 1 on" in doubts(result)["outputs"].detail


def test_saturated_sigmoids(tried):
    found = doubts(tried(after=lambda z: (1e5 * z).sigmoid()))
    assert "exactly 0 or 1 on" in found["outputs"].detail


class Flattered(nn.Module):
    """Copies of it say one class a little too often."""

    def __init__(self, network, lift=0.0):
        super().__init__()
        self.network, self.lift = network, lift

    def forward(self, x):
        return self.network(x) + 10 + self.lift * torch.tensor([1.0, 0, 0, 0])

    def __deepcopy__(self, memo):
        return Flattered(self.network, 5e-3)


def test_a_search_on_something_else_than_the_model(judged):
    model, data = judged
    network = Flattered(model.network)
    found = doubts(
        advkit.evaluate(network, data, THREAT, "pgd", precision="float32", parameters=short("pgd"))
    )
    assert "something else than the model" in found["confirmation"].detail


def test_every_remedy_can_be_typed(tried):
    """What follows the colon names attacks, ensembles and parameters that are there."""
    seen = set()
    for result in (tried("fgsm", before=fourteen_levels), tried("noise"), tried(after=lambda z: 1e4 * z)):
        for check in doubts(result).values():
            _, _, options = check.remedy.rpartition(": ")
            assert options.startswith("--")
            words = options.split()
            seen |= {name for at, name in enumerate(words) if words[at - 1] == "--attack"}
    assert seen and all(name in ATTACKS or name in ENSEMBLES for name in seen)


def test_doubts_come_first_and_causes_before_symptoms(tried):
    verdicts = [check.verdict for check in tried(before=fourteen_levels).checks]
    assert verdicts == sorted(verdicts)
    ranks = {entry.name: entry.facts["rank"] for entry in CHECKS}
    told = [ranks[name] for name in doubts(tried(before=fourteen_levels))]
    assert told == sorted(told) and told[0] == 1 and told[-1] == 3


def test_checks_change_no_verdict_and_are_counted(tried, monkeypatch):
    from advkit.evaluation import evaluate

    asked = tried()
    monkeypatch.setattr(evaluate, "ask_all", lambda evidence, task: ())
    plain = tried()
    assert asked.verdicts == plain.verdicts
    assert asked.backwards > plain.backwards == sum(stage.backwards for stage in plain.stages)
    assert asked.forwards > plain.forwards


def test_the_same_seed_asks_the_same(tried):
    one, two = tried(before=fourteen_levels, eps=0.08), tried(before=fourteen_levels, eps=0.08, batch_size=7)
    assert one.checks == two.checks
    assert (one.forwards, one.backwards) == (two.forwards, two.backwards)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_results_of_before_there_were_remedies_are_read(tried, version):
    result = tried("fgsm")
    values = result.as_values()
    values["version"] = version
    del values["eight_bit"]
    for check in values["checks"]:
        del check["remedy"]
    again = EvaluationResult.from_json(json.dumps(values))
    assert [check.remedy for check in again.checks] == [""] * len(result.checks)
    assert again.trust
