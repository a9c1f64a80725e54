"""Evaluations of real models: the number and everything behind it, and whom it can be believed of."""

import json
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

import advkit
from advkit.attacks.attack import ATTACKS
from advkit.attacks.perturb import robust_correct
from advkit.core import distributed, files, rng
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.evaluation import broken_in_checks, evaluate
from advkit.evaluation.cascade import Cascade
from advkit.evaluation.ledger import Adversarial
from advkit.evaluation.result import EvaluationResult
from advkit.evaluation.settings import Evaluation

THREAT = Threat("linf", 0.03)
SHORT = {"pgd": {"steps": 8}, "noise": {"draws": 3}, "square": {"queries": 100}, "fab-t": {"steps": 20}}


class Map(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def run(model, data, attack="noise,fgsm,pgd", threat=THREAT, **more):
    names = attack.split(",")
    more = {"parameters": {name: SHORT[name] for name in names if name in SHORT}, **more}
    return advkit.evaluate(model, data, threat, attack, **more)


@pytest.fixture
def tried(judged):
    """Evaluates the judged network with something before and after it, on labels of its own."""
    model, data = judged

    def evaluated(attack="pgd", *, before=lambda x: x, after=lambda z: z, eps=0.03, **more):
        network = nn.Sequential(Map(before), model.network, Map(after)).eval()
        with torch.no_grad(), torch.random.fork_rng():
            labels = network(data.images).argmax(1)
        return run(network, (data.images, labels), attack, Threat("linf", eps), **more)

    return evaluated


def doubts(result):
    return {check.name for check in result.checks if check.verdict == "doubt"}


def test_the_figures_agree_with_each_other_and_with_the_images(judged, share):
    model, data = judged
    result = run(model, data, keep=True)
    status = [verdict.status for verdict in result.verdicts]
    assert (result.n, result.clean_correct, status.count("misclassified")) == (30, 28, 2)
    assert 0 < status.count("robust") == result.robust_correct < 28
    for k, rate, interval in (
        (28, result.clean_accuracy, result.clean_interval),
        (result.robust_correct, result.robust_accuracy, result.interval),
    ):
        assert [100 * rate, *(100 * end for end in interval)] == pytest.approx(share(k, 30))
    assert sum(stage.broken for stage in result.stages) == status.count("broken")
    assert [stage.attacked for stage in result.stages] == [28, *(s.correct_after for s in result.stages[:-1])]
    noise, fgsm, pgd = result.stages
    assert noise.backwards == 0 and noise.broken < fgsm.broken + pgd.broken
    with torch.no_grad():
        left = (model(result.adversarial).argmax(1) == data.labels).float().mean()
    assert float(left) == pytest.approx(result.robust_accuracy)
    assert THREAT.contains(result.adversarial, data.images).all()
    # Batches and subsets change nothing, and the checks no verdict; what they spend is counted.
    assert run(model, data, batch_size=5).checks == result.checks and result.trusted
    assert run(model, data, n=11).verdicts == result.verdicts[:11]
    with (
        mock.patch.object(broken_in_checks, "run_checks", lambda *_: ()),
        mock.patch.object(evaluate, "Cascade", wraps=Cascade) as made,
    ):
        plain = run(model, data)
        shaken = nn.Sequential(model.network, Map(lambda z: z + 1e-3 * torch.randn_like(z)))
        run(shaken, data, "noise", n=4, allow_random=True)
    assert [call.kwargs["votes"] for call in made.call_args_list] == [1, 10]
    assert plain.verdicts == result.verdicts and plain.adversarial is None
    assert result.backwards > plain.backwards == sum(stage.backwards for stage in plain.stages)
    assert result.forwards > plain.forwards == 30 + sum(stage.forwards for stage in plain.stages)


def test_any_module_and_any_tensors_are_welcome(judged):
    model, data = judged
    plain, some = nn.Sequential(model.network).train(), data.labels < 2
    levels = (data.images[some] * 255).round().to(torch.uint8)
    result = run(plain, (levels, data.labels[some]), "fgsm", n=7)
    assert result.n == 7 and result.status == "partial" and plain.training
    assert run(plain, (levels[:7], data.labels[some][:7]), "fgsm").status == "complete"


def test_proofs_bound_the_number_from_below(judged, share):
    model, data = judged
    result = run(model, data, "pgd", Threat("linf", 0.012), certify=True)
    status = [verdict.status for verdict in result.verdicts]
    assert 0 < status.count("certified") == result.certified_correct < result.robust_correct
    assert [100 * end for end in result.certified_interval] == pytest.approx(
        share(result.certified_correct, 30)[1:]
    )
    assert result.stages[0].attacked == 28 - result.certified_correct
    assert all(v.forwards == 0 for v in result.verdicts if v.status == "certified")


@pytest.mark.parametrize("names", [("autoattack", "cascade"), ("cascade", "autoattack"), ("pgd", "cascade")])
def test_parts_of_several_ensembles_have_names_of_their_own(names):
    """That of the ensemble goes before a part's where an earlier one is called so."""
    alone = [evaluate.plan([name], THREAT, 10, {}) for name in names]
    both = evaluate.plan(names, THREAT, 10, {})
    first, second = both[: len(alone[0])], both[len(alone[0]) :]
    assert first == alone[0]
    for words in ("name", "key"):
        taken = {getattr(stage, words) for stage in first}
        said = [getattr(stage, words) for stage in alone[1]]
        wanted = [f"{names[1]}/{word}" if word in taken else word for word in said]
        assert [getattr(stage, words) for stage in second] == wanted
        called = dict(zip(said, wanted, strict=True))
        if words == "name":
            afters = [stage.after and called[stage.after] for stage in alone[1]]
            assert [stage.after for stage in second] == afters


def test_what_proofs_do_not_cover_is_noted_beside_proofs_alone(judged, coarse):
    plain, proved = (run(*judged, "fgsm", n=4, certify=certify).notes for certify in (False, True))
    assert len(proved) == 1 + len(plain)


def test_goes_on_after_an_interruption(judged, tmp_path, stopping):
    model, data = judged

    def begin():
        return RunFolder.open("attack", "toy", Evaluation(model="toy"), tmp_path / "run")

    with pytest.raises(KeyboardInterrupt), begin() as folder:
        run(model, data, run=folder, progress=stopping)
    lines = (tmp_path / "run/verdicts.jsonl").read_text()
    assert len(lines.splitlines()) > 1
    for other, more in ((nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), {}), (model, {"bpda": ["network"]})):
        with begin() as folder, pytest.raises(ConfigError):
            run(other, data, run=folder, **more)
    with begin() as folder:
        result = run(model, data, run=folder)
    whole = run(model, data, keep=True)
    assert (result.verdicts, result.stages, result.forwards) == (whole.verdicts, whole.stages, whole.forwards)
    images = Adversarial(tmp_path / "run", data, result.verdicts)
    assert len(images) == 30 and torch.equal(images[torch.arange(30)], whole.adversarial)


@pytest.mark.parametrize("old", [False, True])
def test_damage_is_noticed_and_searched_again(judged, tmp_path, old):
    """Images of 7.0, and others inside the budget, with and without (0.2) their digests; and verdicts."""
    model, data = judged

    def go_on():
        with RunFolder.open("attack", "toy", Evaluation(model="toy"), tmp_path / "run") as folder:
            return run(model, data, run=folder)

    whole = go_on()
    images, lines = tmp_path / "run/adversarial.bin", tmp_path / "run/verdicts.jsonl"
    found, broken = images.read_bytes(), np.array([[v.status == "broken"] for v in whole.verdicts])
    pixels = np.frombuffer(found, np.float32).reshape(30, 64)
    original = data.batch(torch.arange(30))[0].flatten(1).numpy()
    for wrong in (np.full((30, 64), 7), original, *((pixels[::-1],) if not old else ())):
        images.write_bytes(np.where(broken, wrong, pixels).astype(np.float32).tobytes())
        with pytest.raises(DataError, match="damaged"):
            Adversarial(tmp_path / "run", data, whole.verdicts)[torch.arange(30)]
        if old:
            head, *facts = [json.loads(files.unsealed_line(line)) for line in lines.read_text().splitlines()]
            for fact in facts:
                del fact["image_sha256"]
            lines.write_text("".join(f"{json.dumps(each)}\n" for each in (head, *facts)))
        assert go_on().verdicts == whole.verdicts and images.read_bytes() == found
    assert broken.sum() > 3
    content = lines.read_text()
    lines.write_text(content.replace('"broken":true', '"broken":false', 5))
    assert go_on().verdicts == whole.verdicts and lines.read_text() == content
    lines.write_bytes(b"\xff" + content.encode()[1:])
    assert go_on().verdicts == whole.verdicts and lines.read_text() == content


@pytest.mark.parametrize(
    "change",
    [
        {"n": 29},
        {"clean_correct": 27},
        {"robust_correct": 0},
        {"certified_correct": 3},
        {"robust_accuracy": 0.5},
        {"clean_accuracy": 1.0},
        {"verdicts": [3]},
        {"verdicts": None},
        {"checks": [None]},
    ],
)
def test_a_result_whose_counts_are_not_those_of_its_verdicts_is_refused(judged, change):
    result = run(*judged)
    assert EvaluationResult.from_json(result.to_json()) == result
    with pytest.raises((DataError, ConfigError)):
        EvaluationResult.from_json(json.dumps(result.as_values() | change))


@pytest.mark.parametrize(
    ("more", "fault", "key"),
    [
        ({"after": lambda z: z.softmax(1)}, ModelError, "probabilities"),
        ({"after": lambda z: z * float("nan")}, ModelError, ""),
        ({"after": lambda z: torch.where(torch.arange(len(z))[:, None] > 20, torch.inf, z)}, ModelError, ""),
        ({"after": lambda z: z + torch.randn_like(z)}, ModelError, "allow-random"),
        ({"after": lambda z: z[:, :3]}, ModelError, ""),
        ({"after": lambda z: z.mean(1)}, ModelError, ""),
        ({"labels": torch.full((30,), 9)}, DataError, "9"),
        ({"labels": torch.full((30,), 4)}, DataError, "4"),
        ({"attack": "pdg"}, ConfigError, "'pgd'"),
        ({"parameters": {"pgd": {"stepz": 3}}}, ConfigError, "stepz"),
        ({"attack": "pgd", "parameters": {"fgsm": {}}}, ConfigError, "fgsm"),
        ({"attack": "pgd,fgsm,pgd"}, ConfigError, "pgd"),
        ({"threat": None}, ConfigError, ""),
        ({"bpda": ["levels"]}, ConfigError, "levels"),
        ({"eight_bit": True}, DataError, ""),
        ({"surrogate": "nobody"}, ModelError, "nobody"),
        ({"surrogate": nn.Sequential(nn.Flatten(), nn.Linear(64, 5))}, ModelError, "5 classes"),
        ({"surrogate": nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), "attack": "noise"}, ConfigError, ""),
        ({"surrogate": nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), "bpda": ["0"]}, ConfigError, ""),
    ],
)
def test_what_cannot_be_is_refused(judged, more, fault, key):
    model, data = judged
    more = {"threat": THREAT, "attack": "pgd", **more}
    network = nn.Sequential(model.network, Map(more.pop("after", lambda z: z))).eval()
    labels = more.pop("labels", None)
    given = data if labels is None else (data.images, labels)
    with pytest.raises(fault, match=key or None):
        advkit.evaluate(network, given, **more)


@pytest.mark.parametrize(("attack", "classes"), [("apgd-dlr", 3), ("apgd-t", 4)])
def test_the_ratio_of_logits_needs_classes(tried, attack, classes):
    for count in (classes - 1, classes) if classes < 4 else (classes - 1,):
        said = {"after": lambda z, k=count: z[:, :k], "parameters": {attack: {"steps": 2}}, "n": 8}
        if count == classes:
            assert tried(attack, **said).stages[0].attacked == 8
        else:
            with pytest.raises(ConfigError, match=attack):
                tried(f"pgd,{attack}", **said)


def test_an_ensemble_is_several_stages(judged):
    stages = evaluate.plan(["square", "cascade"], THREAT, 4, {"cascade": {"tolerance": 0.25}})
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names) > 3 and names[0] == "square"
    keys = [stage.key for stage in stages]
    assert len(set(keys)) == len(keys) and "cascade/square" in keys
    assert {stage.tolerance for stage in stages} == {0, 0.25}
    result = run(*judged, "cascade", n=12, parameters={"cascade": {"tolerance": 0.25}})
    assert [s.name for s in result.stages[:-2]] == names[1:]
    assert result.missing.sample == min(7, result.missing.survivors)
    assert result.trusted and result.robust_correct <= run(*judged, "fgsm", n=12).robust_correct


def test_processes_of_different_plans_refuse_to_work_together(judged):
    """Of what another process says only the plans differ."""
    model, data = judged
    for name in ("model", "images", "plan of attack"):

        def gather(value, name=name):
            return [value, {**value, name: "another"} if isinstance(value, dict) else value]

        with mock.patch.object(distributed, "gather", gather), pytest.raises(ConfigError, match=name):
            run(model, data)


@pytest.mark.parametrize(("attack", "threat"), [("pgd", THREAT), ("fab-t", Threat("l2", 0.15))], ids=str)
def test_an_honest_model_is_not_doubted(judged, attack, threat):
    """On images that are clearly robust, or clearly not: between them, chance says which start succeeds."""
    model, data = judged

    def correct(factor, name, **parameters):
        return robust_correct(model, data, replaced(threat, factor), name, parameters=parameters)[1]

    robust, broken = correct(1.25, "apgd-t"), ~correct(0.8, attack, **SHORT[attack] | {"steps": 20})
    clear = data.take((robust | broken).nonzero()[:, 0])
    result = run(model, clear, attack, threat, parameters={attack: {"steps": 20}})
    assert result.robust_correct == int(robust.sum()) >= 4 and int(broken.sum()) >= 4
    assert doubts(result) == set() and len(result.checks) >= 11 and result.trusted


def replaced(threat, factor):
    return Threat(threat.norm, factor * threat.eps)


@pytest.mark.parametrize("name", [e.name for e in ATTACKS if e.thing.access == "gradients"])
def test_every_attack_with_gradients_can_be_asked_about(judged, name):
    kind = ATTACKS.get(name)
    few = {key: 3 for key in ("steps", "targets", "ascents", "length") if key in kind.Config.model_fields}
    threat = Threat(kind.norms[0], {"linf": 0.02, "l2": 0.15, "l1": 0.5, "l0": 1}[kind.norms[0]])
    result = advkit.evaluate(*judged, threat, name, n=8, parameters={name: few})
    assert result.robust_correct > 0
    assert {"gradients", "ascent", "effort", "eps", "unbounded"} <= {check.name for check in result.checks}


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


def fourteen_levels(x):
    return (x * 13).round() / 13


def blind(x):
    """No numbers where a pixel is white, which none of the images has; the gradient elsewhere is sound."""
    white = (x == 1).flatten(1).any(1)[:, None, None, None]
    return torch.where(white, torch.full_like(x, torch.nan), x)


@pytest.mark.parametrize(
    ("more", "found", "typed"),
    [
        ({"before": fourteen_levels}, {"cut-gradient", "gradients", "ascent", "unbounded"}, "--bpda 0"),
        ({"before": fourteen_levels, "attack": "pgd,square", "eps": 0.06}, {"black-box"}, "--bpda 0"),
        ({"before": fourteen_levels, "eps": 0.08}, {"noise"}, "--bpda 0"),
        ({"after": lambda z: 1e4 * z}, {"gradients"}, "--attack cascade"),
        ({"before": Astray.apply, "eps": 0.06}, {"cut-gradient", "ascent"}, "--attack square"),
        ({"before": lambda x: x + 0.1 * (100 * x).sin(), "attack": "fgsm"}, {"effort"}, "--attack cascade"),
        ({"before": lambda x: x + 0.05 * (300 * x).sin()}, {"ripples"}, "--attack pgd,apgd"),
        ({"attack": "noise"}, {"white-box"}, "--attack cascade"),
        ({"attack": "noise,pgd", "budget": 2}, {"white-box"}, ""),
        ({"after": lambda z: (1e5 * z).sigmoid()}, {"outputs"}, ""),
        ({"before": blind}, {"undefined"}, ""),
        (
            {"after": lambda z: z + 0.05 * torch.randn_like(z), "allow_random": True},
            {"determinism"},
            "--attack",
        ),
    ],
)
def test_each_check_is_tripped_by_a_model_that_is_built_to(tried, more, found, typed):
    result = tried(**more)
    assert found <= doubts(result)
    remedies = [check.flags for check in result.checks if check.name in found]
    assert all(remedy.startswith(typed) for remedy in remedies)
    assert result.trust.startswith("Do not believe")


def test_a_budget_that_ended_the_attacks_is_noted(tried):
    usual, spent = (tried(attack="noise,pgd", budget=budget).notes for budget in (None, 2))
    assert len(spent) == len(usual) + 1 and "pgd" in spent[-1]


def test_accuracy_that_rises_with_eps():
    """One step of the whole eps leaps over the only place where the model is wrong."""

    def valley(x):
        score = (x.flatten(1).mean(1) - 0.55).abs() - 0.02
        return torch.stack([torch.zeros_like(score), score], 1)

    given = (torch.full((16, 1, 8, 8), 0.5), torch.ones(16, dtype=torch.int64))
    assert "eps" in doubts(advkit.evaluate(Map(valley), given, Threat("linf", 0.1), "fgsm"))


def test_rounded_probabilities(judged):
    model, data = judged
    for scale, doubted in ((1, False), (1e5, True)):
        network = nn.Sequential(model.network, Map(lambda z, s=scale: (s * z).softmax(1)))
        probable = advkit.load_model(network, shape=(1, 8, 8), outputs="probabilities")
        assert ("outputs" in doubts(run(probable, data, "pgd"))) == doubted


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
    assert "confirmation" in doubts(run(Flattered(model.network), data, "pgd", precision="float32"))


def test_what_stood_only_for_want_of_a_gradient_falls(tried, judged):
    """Layers that hide it are named all at once, and passed straight through."""
    _, data = judged
    hidden, seen = (
        tried(before=fourteen_levels, eps=0.06),
        tried(before=fourteen_levels, eps=0.06, bpda=["0"]),
    )
    assert hidden.robust_accuracy > 0.7 and seen.robust_accuracy < 0.3
    assert not {"cut-gradient", "gradients", "ascent", "unbounded"} & doubts(seen)
    layers = (Map(fourteen_levels), Map(fourteen_levels), nn.Flatten(), nn.Linear(64, 32))
    with rng.scope("cpu", 0, "layers"):
        twice = nn.Sequential(*layers, Map(lambda h: (1e6 * h).sigmoid()), nn.Linear(32, 4)).eval()
    with torch.no_grad():
        given = (data.images, twice(data.images).argmax(1))
    result = run(twice, given, "pgd", bpda=["1"], keep=True)
    assert result.checks[0].name == "cut-gradient" and result.checks[0].flags == "--bpda 0,1,4"
    with torch.no_grad():
        right = (twice(result.adversarial).argmax(1) == given[1]).float().mean()
    assert float(right) == pytest.approx(result.robust_accuracy)


def test_gradients_come_from_the_surrogate_and_verdicts_from_the_model():
    def linear(seed):
        with rng.scope("cpu", seed, "linear"):
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()

    model, near, far = linear(0), linear(0), linear(7).train()
    x = rng.uniform(torch.arange(40), (1, 8, 8))
    with torch.no_grad():
        near[1].weight += 0.3 * near[1].weight.std() * linear(5)[1].weight.sign()
        data = (x, model(x).argmax(1))
    before, threat = far[1].weight.clone(), Threat("linf", 0.05)
    own, other = run(model, data, "fgsm", threat), run(model, data, "fgsm", threat, surrogate=far)
    transfer = run(model, data, "fgsm,square", threat, surrogate=near, keep=True)
    broken = [result.stages[0].broken for result in (own, transfer, other)]
    assert broken[0] >= broken[1] > broken[2]
    assert [stage.transferred for stage in (*own.stages, *transfer.stages)] == [False, True, False]
    assert own.surrogate_hash is None and transfer.surrogate_hash is not None and len(transfer.notes) > 0
    with torch.no_grad():
        assert int((model(transfer.adversarial).argmax(1) == data[1]).sum()) == transfer.robust_correct
    assert threat.contains(transfer.adversarial, x).all()
    # The surrogate's margins mean nothing, its gradients are no reason to believe, and it stays as it was.
    assert all(verdict.margin is None for verdict in other.verdicts)
    assert "white-box" in doubts(other) and "white-box" not in doubts(own)
    assert far.training and torch.equal(far[1].weight, before) and far[1].weight.grad is None
    with mock.patch.object(ATTACKS.get("pgd"), "single_image", True), pytest.raises(ConfigError, match="pgd"):
        run(model, data, "pgd", threat, surrogate=near)  # as those of other libraries are
