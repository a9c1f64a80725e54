"""Where each check begins to doubt, from both sides, and the figures that it tells."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch import nn

from advkit.attacks.attack import ATTACKS, Rows
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.ensemble import ENSEMBLES
from advkit.attacks.ensemble import Stage as Planned
from advkit.attacks.loss import ATTACK_LOSSES
from advkit.attacks.losses.margin import margin
from advkit.attacks.perturb import make
from advkit.core import rng
from advkit.core.errors import ConfigError
from advkit.core.progress import SILENT, Task
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.evaluation import evidence as module
from advkit.evaluation.cascade import Cascade
from advkit.evaluation.check import BLIND, CAUSE, CHECKS, SYMPTOM, Doubt, Remedy, run_checks
from advkit.evaluation.differences import Differences, differences
from advkit.evaluation.evidence import Evidence
from advkit.evaluation.gradient_trace import GradientTrace, size_of
from advkit.evaluation.ledger import Ledger
from advkit.evaluation.result import Limited, Stage
from advkit.evaluation.settings import Evaluation
from advkit.models.inspect import ModelFacts
from advkit.models.load import wrap
from advkit.models.outputs import Reading

CE, LINF = ATTACK_LOSSES.get("ce"), Threat("linf", 0.1)


def some(bad, count):
    """(count,) bool, true at ``bad`` places."""
    return torch.arange(count) < bad


def stage(attack="pgd", **more):
    given = {"attacked": 9, "broken": 0, "correct_after": 9, "forwards": 0, "backwards": 0}
    parameters = make(attack, LINF, more.pop("parameters", {})).config.model_dump(mode="json")
    return Stage(name=attack, attack=attack, parameters=parameters, **given | more)


def evidence(
    count,
    *,
    stages=None,
    tried=None,
    broken=0,
    images=None,
    attacks=("pgd",),
    random=False,
    eight_bit=False,
    **more,
):
    """So many images stand. ``tried``: stages by image (! broke it, ? was refuted, ~ met no numbers);
    ``broken``: how many fall when a check searches."""
    images = images or count
    data = Data("toy", "test", torch.full((images, 1, 2, 2), 0.5), torch.zeros(images).long(), ("a", "b"),
                torch.arange(images))  # fmt: skip
    says = tried or (lambda sample: ["pgd"])
    entries = {
        sample: [
            SimpleNamespace(
                stage=name.rstrip("!?~"),
                broken=name[-1] == "!",
                refuted=int(name[-1] == "?"),
                undefined=name[-1] == "~",
            )
            for name in says(sample)
        ]
        for sample in range(images)
    }
    undecided = torch.tensor(
        [at < count and not any(entry.broken for entry in entries[at]) for at in range(images)]
    )
    cascade = SimpleNamespace(**{
        "undecided": undecided, "nearest_first": sorted, "passes": 0, "images": data, "ids": [*range(images)],
        "threat": LINF, "tried": entries.get, "correct": torch.ones(images).bool(),
        "config": Evaluation(model="", eight_bit=eight_bit),
        "noticed": 50, "confirmed": 40, "clean": torch.tensor([[3.0, -2.0]]).expand(images, 2),
        "missing": None, "limited": None, "surrogate": None, "exhausted": False,
        "device": torch.device("cpu"),
    } | more)  # fmt: skip
    stages = [stage()] if stages is None else stages
    facts = ModelFacts(deterministic=not random, notes=())
    known = Evidence(cascade, SimpleNamespace(probabilities=False, reading=None), stages, facts, attacks)
    known.trace, known.differences, known.cutting = None, None, []
    known.searched = []

    def search(name, attack, chosen):
        known.searched.append((name, attack, list(chosen)))
        fallen = broken(attack) if callable(broken) else broken
        return [SimpleNamespace(index=row, broken=at < fallen) for at, row in enumerate(chosen)]

    known.search = search
    return known


def walk(count, *, failed=0, dead=0, blind=0, loss=CE):
    """Along a path: where the loss does not rise, is dead at the image, and dead in half of the steps."""
    one = torch.ones(count)
    clean = one * ~some(dead, count)
    sizes = torch.stack([one, one * ~some(blind, count)])
    after = one * ~some(failed, count)
    return GradientTrace(
        stage(), loss, clean=clean, margin_clean=one, sizes=sizes, before=0 * one, after=after
    )


def with_walk(count, **more):
    known = evidence(count)
    known.trace = walk(count, **more)
    return known


def with_differences(count, *, silent=0, stepped=0, wrong=0, failed=None):
    known = evidence(count) if failed is None else with_walk(count, failed=failed)
    known.differences = Differences(some(silent, count), some(stepped, count), some(wrong, count))
    return known


def black(bad, stood, images):
    """All saw pgd, so many were left to square, and some of these fell to it."""

    def says(sample):
        if sample >= stood:
            return ["square!", "pgd"] if sample % 2 else ["pgd!"]
        last = "square!" if sample < bad else "square" if sample > bad else "fgsm!"
        return ["pgd", "square", last] if last == "fgsm!" else ["pgd", "fgsm", last]

    return evidence(
        images, stages=[stage(), stage("fgsm"), stage("square")], tried=says, attacks=("pgd", "square")
    )


def answers(count, full, *, probable):
    """Clean answers of which so many are rounded."""
    said = torch.full((count, 2), 0.5)
    said[:full] = torch.tensor([0.0, 1.0])
    if not probable:  # one of the two is enough
        said[: full // 2], said[full // 2 : full, 0] = torch.tensor([0.0, 0.5]), 0.5
    known = evidence(count, clean=said.log() if probable else said)
    known.model.probabilities = probable
    return known


def stands(at):
    """Of the images that are looked at, how many stand at a multiple of the eps."""
    return lambda attack: 16 - at.get(round(attack.threat.eps / LINF.eps, 6), 16)


LIMITS = [
    # check, evidence with so many bad images, the largest number that is tolerated, figures of a doubt
    ("ascent", lambda bad: with_walk(16, failed=bad), 3, lambda bad: [16 - bad, 16]),
    ("ascent", lambda bad: with_walk(30, failed=bad), 6, lambda bad: [30 - bad, 30]),
    ("ascent", lambda bad: with_walk(3, failed=bad), 1, lambda bad: [3 - bad, 3]),
    ("ascent", lambda bad: with_walk(1, failed=bad), 0, lambda bad: [int(not bad), 1]),
    ("black-box", lambda bad: black(bad, 400, 400), 8, lambda bad: [bad, 400]),
    ("black-box", lambda bad: black(bad, 20, 400), 5, lambda bad: [bad, 20]),
    ("black-box", lambda bad: black(bad, 20, 30), 1, lambda bad: [bad, 20]),
    ("confirmation", lambda bad: evidence(30, tried=lambda k: ["pgd?" if k < bad else "pgd"]), 3,
     lambda bad: [40, 50, bad, 30]),
    ("confirmation", lambda bad: evidence(5, tried=lambda k: ["pgd?" if k < bad else "pgd"]), 1,
     lambda bad: [40, 50, bad, 5]),
    ("cut-gradient", lambda bad: with_differences(20, silent=bad), 2, lambda bad: [bad, 20]),
    ("cut-gradient", lambda bad: with_differences(20, wrong=bad), 5, lambda bad: [bad, 20]),
    ("cut-gradient", lambda bad: with_differences(20, wrong=3, stepped=bad), 5, lambda bad: [bad, 20]),
    ("cut-gradient", lambda bad: with_differences(20, wrong=20, failed=bad), 1, lambda bad: [20, 20]),
    ("gradients", lambda bad: with_walk(20, dead=bad), 1, lambda bad: [bad, 20, 0]),
    ("gradients", lambda bad: with_walk(20, blind=bad), 1, lambda bad: [0, 20, bad]),
    ("noise", lambda bad: evidence(20, broken=bad), 0, lambda bad: [bad, 16, 8]),
    ("outputs", lambda bad: answers(20, bad, probable=True), 1, lambda bad: [1, bad, 20]),
    ("outputs", lambda bad: answers(20, bad, probable=False), 1, lambda bad: [0, 1, 0, 1, bad, 20]),
    ("unbounded", lambda bad: evidence(50, passes=50000, broken=20 - bad), 2, lambda bad: [bad, 20, 20]),
    ("white-box", lambda bad: evidence(150, images=200, tried=lambda k: ["noise"] if k < bad else ["pgd"]), 2,
     lambda bad: [150 - bad, 150]),
    ("effort", lambda bad: evidence(20, broken=bad, attacks=("cascade",)), 1, lambda bad: [bad, 16, 40]),
    ("eps", lambda bad: evidence(40, passes=10**9, broken=stands({0.5: 16, 2: 4, 4: 4 + bad})), 1,
     lambda bad: [16, 16, 0.5, 16, 1, 4, 2, 4 + bad, 4]),
    ("eps", lambda bad: evidence(40, passes=10**9, broken=stands({0.5: 16 - bad, 2: 9, 4: 0})), 0,
     lambda bad: [16, 16 - bad, 0.5, 16, 1, 9, 2, 0, 4]),
]  # fmt: skip


ACCEPTED = {
    # what is told where there is no doubt, where that is something else
    "gradients": lambda known: [
        20 - int((known.trace.clean == 0).sum()),
        20,
        20 - int(known.trace.blind.sum()),
    ],
    "outputs": lambda known: None if known.model.probabilities else [20, *known.cascade.clean.aminmax()],
    "cut-gradient": lambda known: [
        int(known.differences.stepped.sum()) or 20 - int(known.differences.wrong.sum()),
        20,
    ],
}


@pytest.mark.parametrize(("name", "build", "most", "figures"), LIMITS)
def test_a_check_doubts_from_one_image_on(printed, name, build, most, figures):
    for bad in range(most + 3):
        known = build(bad)
        said = CHECKS.get(name)(known)
        if bad > most:
            assert isinstance(said, Doubt) and said.remedy
            printed(said.detail, *figures(bad))
        else:
            assert isinstance(said, str)
            printed(said, *(ACCEPTED.get(name, lambda known: None)(known) or figures(bad)))


def test_what_else_is_told(printed):
    assert str(Remedy("try", "--harder")).endswith("--harder") and str(Remedy("try")) == "try"
    named = CHECKS.get("black-box")(black(20, 400, 400)).detail
    broken = black(20, 400, 400)
    broken.robust = []  # no image is left on which gradients could have misled
    assert isinstance(CHECKS.get("black-box")(broken), str)
    assert "square" in named and "fgsm" not in named
    refuted = evidence(30, tried=lambda k: ["pgd?"], eight_bit=True)  # rounding to 8 bits may undo successes
    printed(CHECKS.get("confirmation")(refuted), 40, 50, 8, 30, 30)
    printed(CHECKS.get("confirmation")(evidence(30, noticed=0)))
    spent = evidence(150, tried=lambda k: ["noise"], exhausted=True)
    assert CHECKS.get("white-box")(spent).remedy.text.endswith("--budget")
    faint = with_walk(20, dead=1)
    faint.trace = replace(faint.trace, clean=torch.tensor([0.0, 2.0**-21, 2.0**-21, *[1.0] * 17]))
    printed(CHECKS.get("gradients")(faint).detail, 1, 20, 2, 0)
    assert "margin" in CHECKS.get("gradients")(faint).detail  # which lives
    named = with_differences(20, silent=9)
    named.cutting = ["layer-1", "layer-2"]
    assert all(layer in CHECKS.get("cut-gradient")(named).detail for layer in named.cutting)
    for stepped in (2, 3):
        assert (
            "steps" in CHECKS.get("cut-gradient")(with_differences(20, silent=9, stepped=stepped)).detail
        ) == (stepped > 2)


@pytest.mark.parametrize("beyond", [-1e-3, 0.0, 1.0, 1 + 1e-3, 1.5])
def test_only_outputs_that_all_lie_between_0_and_1_are_taken_for_probabilities(beyond):
    known = answers(20, 20, probable=False)
    known.cascade.clean[19, 1] = beyond
    assert isinstance(CHECKS.get("outputs")(known), Doubt) == (0 <= beyond <= 1)


def test_what_could_change_nothing_is_not_asked():
    nothing = evidence(0, images=3, tried=lambda sample: ["pgd!"])
    looked = {entry.name: entry.thing(nothing) for entry in CHECKS if entry.name != "determinism"}
    assert {name for name, said in looked.items() if said is not None} == {
        "class-order", "clean", "confirmation",
    }  # fmt: skip
    sightless = evidence(
        20, stages=[stage("noise"), stage("pgd", transferred=True), stage("fgsm", attacked=0)]
    )
    assert sightless.gradient_stages == [] and sightless.last is None
    for name in ("ascent", "gradients", "eps", "unbounded", "black-box", "cut-gradient"):
        assert CHECKS.get(name)(sightless) is None
    assert isinstance(CHECKS.get("white-box")(sightless), Doubt)


@pytest.mark.parametrize(
    ("first", "second", "random", "samples", "doubted"),
    [
        (0.9e-4, 0, False, 1, False), (1.1e-4, 0, False, 1, True),
        (9e-3, 9e-3, False, 1, False), (1.1e-2, 1.1e-2, False, 1, True),
        (0, 0, True, 9, True), (0, 0, True, 10, False),
        (1e-3, 0, True, 10, True), (0, 0, False, 1, False),
    ],
)  # fmt: skip
def test_answers_that_change(printed, first, second, random, samples, doubted):
    """By these shares of the largest logit, in two passes after the attacks."""
    stages = [stage("noise"), stage().model_copy(update={"parameters": {"samples": samples}})]
    known = evidence(20, random=random, stages=stages)
    asked, changes = [], iter((first, second))

    def logits(x):
        asked.append(len(x))
        return known.cascade.clean[: len(x)] * (1 + next(changes))

    known.oracle = lambda *, searched: SimpleNamespace(logits=logits)
    said = CHECKS.get("determinism")(known)
    assert isinstance(said, Doubt) == doubted and asked == [16, 16]
    if not doubted:
        printed(said, samples if samples > 1 else 16)


@pytest.mark.parametrize(
    ("right", "n", "classes", "doubted"),
    [
        (10, 100, 10, True), (15, 100, 10, True), (16, 100, 10, False),
        (0, 5, 10, True), (2, 5, 10, True), (3, 5, 10, False),
        (7, 10, 2, True), (8, 10, 2, False), (3, 4, 2, True), (4, 4, 2, False), (1, 1, 1000, False),
    ],
)  # fmt: skip
def test_a_clean_accuracy_of_guessing_is_doubted(printed, right, n, classes, doubted):
    """Above the 5 % tail of the binomial (15 of 100 at 1/10: 7.3 %; 16: 4.0 %), or above halfway to all."""
    answers = torch.arange(n) % classes
    answers[right:] += 1
    known = evidence(right, images=n, clean=torch.eye(classes)[answers % classes])
    known.cascade.images = replace(
        known.cascade.images, labels=torch.arange(n) % classes, class_names=tuple(map(str, range(classes)))
    )
    known.cascade.correct = torch.arange(n) < right
    said = CHECKS.get("clean")(known)
    assert isinstance(said, Doubt) == doubted
    printed(said.detail if doubted else said, right, n, classes)


@pytest.mark.parametrize(("offset", "doubted"), [(0, False), (1e4, False), (1e6, True), (-1e6, True)])
def test_logits_that_float32_rounds_coarsely_are_doubted(printed, offset, doubted):
    """At 1e6 its steps are 0.0625, here of differences of 5; the bound is stated for 1.2e-7 of the logits."""
    known = evidence(40, clean=torch.tensor([[3.0, -2.0]]).expand(40, 2) + offset)
    said = CHECKS.get("outputs")(known)
    assert isinstance(said, Doubt) == doubted
    if doubted:
        printed(said.detail, 40, 0.12, 5)


def test_the_zero_beside_the_logit_of_a_network_of_one_is_no_rounding():
    known = evidence(40, clean=torch.tensor([[0, 0.5]]).expand(40, 2))
    assert isinstance(CHECKS.get("outputs")(known), Doubt)
    known.model.reading = Reading(single=True)
    assert isinstance(CHECKS.get("outputs")(known), str)


def test_misleading_gradients_are_no_reason_for_more_of_them():
    known = black(20, 400, 400)
    known.attacks = ("cascade",)
    assert "square" in CHECKS.get("black-box")(known).remedy.flags


def test_one_answer_for_all_images_is_doubted():
    known = evidence(90, images=100)
    assert isinstance(CHECKS.get("clean")(known), str)
    known.cascade.images = replace(known.cascade.images, labels=(torch.arange(100) >= 90).long())
    assert isinstance(CHECKS.get("clean")(known), Doubt)


@pytest.mark.parametrize(("swapped", "doubted"), [(0, False), (10, False), (11, True), (40, True)])
def test_another_order_of_the_classes_is_doubted(printed, swapped, doubted):
    """Images of two classes that have the outputs of none, beside 40 that are right: McNemar's p is .002 for
    10 of them against none, and .00098 for 11."""
    labels = torch.cat([torch.arange(40) % 2, 2 + torch.arange(swapped) // 2 % 2])
    outputs = torch.where(labels < 2, labels, 7 - labels)
    known = evidence(40, images=len(labels), clean=torch.eye(6)[outputs])
    known.cascade.images = replace(
        known.cascade.images, labels=labels, class_names=("ant", "bee", "cat", "dog")
    )
    said = CHECKS.get("class-order")(known)
    assert isinstance(said, Doubt) == doubted
    if doubted:
        printed(said.detail, 40, 40 + swapped, 40 + swapped, 5, 4)
        assert "output 4 as dog" in said.detail and "output 5 as cat" in said.detail
    else:
        printed(said, 40, 40 + swapped)


@pytest.mark.parametrize("seed", range(5))
def test_answers_by_chance_have_no_better_order(seed):
    """The order is found on one half of the images and counted on the other."""
    random = torch.Generator().manual_seed(seed)
    labels, outputs = torch.randint(50, (2, 400), generator=random)
    known = evidence(0, images=400, clean=torch.eye(50)[outputs])
    known.cascade.images = replace(
        known.cascade.images, labels=labels, class_names=tuple(map(str, range(50)))
    )
    assert isinstance(CHECKS.get("class-order")(known), str)


@pytest.mark.parametrize("loss", [CE, margin, None])
def test_the_loss_is_that_of_the_trace(loss):
    known = with_walk(20, dead=20, loss=loss)
    assert known.loss is (loss or margin) and known.saturated == (loss is CE)
    known.trace = None
    assert known.loss is margin and not known.saturated


@pytest.mark.parametrize(
    ("attack", "parameters", "passes", "rows", "steps", "targets"),
    [
        ("pgd", {"steps": 20, "restarts": 5}, 0, 16, 20, 0),
        ("pgd", {"steps": 20}, 51199, 31, 20, 0),  # a fortieth pays for 16 rows of twice the steps
        ("pgd", {"steps": 20}, 51200, 16, 40, 0),
        ("pgd", {"steps": 20}, 10**9, 64, 40, 0),
        ("pgd", {"steps": 1}, 2559, 31, 1, 0),
        ("pgd", {"steps": 1}, 2560, 16, 2, 0),
        ("apgd-t", {"steps": 10, "targets": 9}, 0, 8, 10, 2),
        ("apgd-t", {"steps": 10, "targets": 1}, 0, 16, 10, 1),
        ("fgsm", {}, 0, 16, 20, 0),
    ],
)
def test_how_much_effort_is_tried(printed, attack, parameters, passes, rows, steps, targets):
    known = evidence(100, stages=[stage(attack, parameters=parameters)], passes=passes, broken=1)
    known.attacks = ("fgsm", "autoattack")
    said = CHECKS.get("effort")(known)
    ((_, made, chosen),) = known.searched
    assert chosen == list(range(rows))
    assert (made.steps, made.starts, made.targets) == (steps, 1, targets)
    printed(said, 1, rows, steps)
    assert ("steps" in said) == (steps > 1)


@pytest.mark.parametrize(
    ("cosine", "averaged", "plain", "doubted", "searches"),
    [
        (0.39, 0, 0, True, "long"),
        (0.41, 2, 0, True, "short plain long"),
        (0.96, 1, 0, False, "short plain"),
        (0.96, 5, 3, True, "short plain long"),
        (0.96, 5, 4, False, "short plain"),  # another start breaks them, too
        (0.98, 5, 0, False, ""),
    ],
)
def test_when_a_loss_has_ripples(cosine, averaged, plain, doubted, searches):
    """By the median of the cosines, and by what only averaged gradients break."""
    known = evidence(20, broken=lambda attack: averaged if attack.config.smoothing else plain)
    known.agreement = torch.tensor([-1.0] * 7 + [cosine] * 2 + [1.0] * 7)
    said = CHECKS.get("ripples")(known)
    made = {
        "plain" if not attack.config.smoothing else "long" if attack.starts > 1 else "short": (attack, chosen)
        for _, attack, chosen in known.searched
    }
    assert isinstance(said, Doubt) == doubted and [*made] == searches.split()
    assert [len(chosen) for _, chosen in made.values()] == [averaged if it == "plain" else 16 for it in made]
    costs = {it: attack.starts * attack.config.samples * attack.steps for it, (attack, _) in made.items()}
    assert costs.get("short") == costs.get("plain") and (doubted is False or costs["long"] > 500)


@pytest.mark.parametrize(("images", "tolerated"), [(100, 0), (1000, 1), (2999, 2)])
@pytest.mark.parametrize("norm", ["linf", "l0"])
def test_attacks_named_one_by_one_are_compared_with_the_default(printed, norm, images, tolerated):
    """The first attacks of cascade have the images that are left, the nearest 64; two classes, one target."""
    for bad in range(tolerated + 2):
        known = evidence(80, stages=[stage("noise")], images=images, threat=Threat(norm, 1), broken=bad)
        known.cascade.correct[:] = True
        said = CHECKS.get("effort")(known)
        (_, _, nearest), (_, _, rest) = known.searched
        assert nearest == list(range(64)) and rest == nearest[bad:]
        assert isinstance(said, Doubt) == (2 * bad > tolerated)
        said = said.detail if isinstance(said, Doubt) else said
        printed(said.partition(" are broken")[0], 2 * bad, 64)


@pytest.mark.parametrize(
    ("threat", "factors"),
    [
        (Threat("linf", 0.5), (0.5, 2)), (Threat("linf", 0.26), (0.5, 2)),
        (Threat("linf", 0.25), (0.5, 2, 4)),
        (Threat("l2", 2.0), (0.5, 2, 4)),
    ],
    ids=str,
)  # fmt: skip
def test_at_which_eps_the_attack_is_repeated(threat, factors):
    apgd = stage("apgd-t", parameters={"steps": 30, "restarts": 3, "targets": 3})
    known = evidence(40, stages=[apgd], threat=threat, passes=2500 * 25)
    assert isinstance(CHECKS.get("eps")(known), str)
    assert len({name for name, _, _ in known.searched}) == len(factors)
    for (_, made, chosen), factor in zip(known.searched, factors, strict=True):
        assert made.threat.norm == threat.norm and made.threat.eps == pytest.approx(threat.eps * factor)
        assert (made.steps, made.starts, made.targets) == (10, 1, 1) and chosen == list(range(12))
    known.repeated = mock.Mock(side_effect=ConfigError("no eps fits"))
    assert isinstance(CHECKS.get("eps")(known), str) and len(known.searched) == len(factors)


def test_what_else_is_searched():
    known = evidence(40, passes=2500 * 20)
    for name in ("noise", "unbounded"):
        CHECKS.get(name)(known)
    (_, noise, near), (_, free, far) = known.searched
    assert (noise.config.draws, near) == (8, list(range(20)))
    assert (free.steps, free.config.start, free.config.loss) == (20, "original", "margin")
    assert free.threat.contains(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).all()
    assert len(far) == 20 and (far[0], far[-1]) == (0, 39)


@pytest.mark.parametrize(("passes", "looked_at"), [(0, 16), (42499, 16), (42500, 17), (10**9, 32)])
def test_images_that_are_looked_at(passes, looked_at):
    for count in (0, 1, 2, 15, 16, 17, 33, 100):
        known = evidence(count, images=120, passes=passes)
        most = min(looked_at, count)
        assert known.looked_at == looked_at and known.nearest == list(range(most))
        gaps = {b - a for a, b in pairwise(known.spread)}
        assert len(known.spread) == most and known.spread[:1] == [0][:most]
        assert known.spread[-1:] == [count - 1][: most and 1] if most != 1 else known.spread == [0]
        assert not gaps or (max(gaps) - min(gaps) <= 1 and min(gaps) >= 1)


@pytest.mark.parametrize(
    ("attacks", "facts", "typed"),
    [
        ("pgd", {}, "--attack cascade"),
        ("cascade", {}, "--attack cascade,autoattack"),
        ("autoattack", {}, "--attack autoattack --set parameters.autoattack.version=plus"),
        ("cascade", {"silent": 3, "cutting": ["a", "b"]}, "--bpda a,b"),
        ("cascade", {"silent": 2, "cutting": ["a", "b"]}, "--attack cascade,autoattack"),
        ("cascade", {"silent": 3}, "--attack cascade,square --set parameters.square.queries=20000"),
        ("cascade,square", {"silent": 3}, ""),
        ("autoattack", {"wrong": 6}, ""),
        ("cascade", {"wrong": 5}, "--attack cascade,autoattack"),
        ("cascade", {"dead": 2}, "--attack cascade"),  # the loss is saturated
        ("cascade", {"dead": 1}, "--attack cascade,autoattack"),
        ("cascade", {"blind": 2}, "--attack cascade"),
        ("pgd", {"blind": 2, "loss": margin}, "--attack square --set parameters.square.queries=20000"),
        ("cascade", {"blind": 1, "loss": margin}, "--attack cascade,autoattack"),
        ("cascade", {"dead": 2, "loss": None}, "--attack cascade,autoattack"),
    ],
)  # fmt: skip
def test_what_is_advised(attacks, facts, typed):
    known = evidence(20, attacks=attacks.split(","))
    facts = dict(facts)
    known.cutting = facts.pop("cutting", [])
    known.differences = Differences(
        *(some(facts.pop(name, 0), 20) for name in ("silent", "stepped", "wrong"))
    )
    known.trace = walk(20, **facts)
    assert known.remedy.flags == typed and known.remedy.text
    for word, name in pairwise(typed.split()):
        assert word != "--attack" or all(one in ATTACKS or one in ENSEMBLES for one in name.split(","))


@pytest.mark.parametrize("last", [True, False])
def test_one_robust_image_near_what_is_no_number_is_enough(last):
    """By any stage; those that were broken all the same do not count."""
    seen = {0: ["pgd", "apgd~"] if last else ["pgd~", "apgd"], 1: ["pgd~", "apgd!"]}
    for first, doubted in ((0, True), (2, False)):
        known = evidence(3, images=3, tried=lambda sample, first=first: seen.get(sample + first, ["pgd"]))
        assert isinstance(CHECKS.get("undefined")(known), Doubt) is doubted
    assert CHECKS.get("undefined")(evidence(0, images=2, tried=lambda sample: ["pgd~", "apgd!"])) is None


def test_doubts_come_first_and_of_these_the_causes():
    known = with_differences(20, silent=20)
    known.trace, known.agreement = walk(20, failed=20, dead=20), torch.ones(16)
    known.oracle = lambda *, searched: SimpleNamespace(logits=lambda x: known.cascade.clean[: len(x)])
    told = Told()
    found = run_checks(known, SimpleNamespace(task=lambda *_, **__: nullcontext(told)))
    ranks = {entry.name: entry.facts["rank"] for entry in CHECKS}
    order = [(check.verdict != "doubt", ranks[check.name], check.name) for check in found]
    assert order == sorted(order) and told.done == len(list(CHECKS)) and CAUSE < BLIND < SYMPTOM
    assert {check.name for check in found if check.verdict == "doubt"} == {
        "cut-gradient",
        "gradients",
        "ascent",
        "unbounded",
    }
    assert all(bool(check.remedy) == (check.verdict == "doubt") for check in found)


class Told(Task):
    done = 0

    def advance(self, n=1, **facts):
        self.done += n


# What the checks measure.


def test_when_a_path_is_dead_or_rises():
    sizes = torch.ones(4, 3)
    sizes[:1, 0], sizes[:2, 1], sizes[:3, 2] = 0, 2.0**-20, torch.inf
    before, after = torch.tensor([1.0, 100.0, 0.0]), torch.tensor([1.0 + 2e-6, 100.00005, 0.0])
    one = torch.ones(3)
    path = GradientTrace(stage(), CE, clean=one, margin_clean=one, sizes=sizes, before=before, after=after)
    seen = torch.tensor([0, 2.0**-20, 1.01 * 2.0**-20, 1e6, torch.inf])
    assert path.dead(seen).tolist() == [True, True, False, False, True]
    assert path.blind.tolist() == [False, True, True] and path.risen.tolist() == [True, True, False]
    assert not replace(path, after=torch.tensor([1.0 + 5e-7, 100.0, -1e-6])).risen.any()
    nothing = replace(path, clean=torch.zeros(3), sizes=torch.zeros(4, 3))
    assert nothing.dead(seen).all() and nothing.blind.all()
    strange = torch.tensor([[1.0, -5.0], [torch.nan, 1.0], [torch.inf, 0.0], [0.0, 0.0]])
    assert size_of(strange).tolist() == [5.0, torch.inf, torch.inf, 0.0]


class Linear(nn.Module):
    """Two classes, apart by a sum of the pixels; the gradient that it tells is ``promise`` times the true."""

    def __init__(self, slope=1.0, promise=1.0, lift=0.0, levels=0, blind=False):
        super().__init__()
        self.weight = nn.Parameter(slope * torch.tensor([1.0, 2.0, 3.0, 7.0]))
        self.promise, self.lift, self.levels, self.blind = promise, lift, levels, blind

    def forward(self, x):
        if self.blind:  # to the last pixel
            x = torch.cat([x.flatten(1)[:, :3], x.flatten(1)[:, 3:].detach()], 1)
        if self.levels:
            x = (x * self.levels).round() / self.levels
        score = (self.weight * x.flatten(1)).sum(1)
        score = score.detach() + self.promise * (score - score.detach())
        return torch.stack([score + self.lift, -score + self.lift], 1)


class Flat(nn.Module):
    """Constant up to a distance from grey."""

    def __init__(self, reach):
        super().__init__()
        self.reach = reach

    def forward(self, x):
        far = ((x - 0.5).abs() > self.reach).float() + 0 * x
        return torch.stack([far.flatten(1).sum(1), 1 - far.flatten(1).sum(1)], 1)


def asked(model, count=6):
    """Evidence of a real, short evaluation, all of whose images stand."""
    x = 0.5 + 0.02 * (rng.uniform(torch.arange(count), (1, 2, 2)) - 0.5)
    data = Data("toy", "test", x, torch.zeros(count).long(), ("a", "b"), torch.arange(count))
    with torch.no_grad():
        clean = model(x)
    ledger, config = Ledger(None, data, ["pgd"], keep=False), Evaluation(model="", precision="float32")
    cascade = Cascade(model, model, data, clean, LINF, ledger, config, votes=1, progress=SILENT)
    parameters = {"start": "original", "loss": "margin", "steps": 7}
    done = cascade.run(Planned("pgd", "pgd", parameters))
    assert done.attacked == count and done.broken == 0 and len(cascade.verdicts()) == count
    return Evidence(cascade, wrap(model, shape=(1, 2, 2)), [done], (), ("pgd",))


def test_a_walk_on_a_model_whose_gradient_is_known():
    model = Linear(slope=3.0)
    known = asked(model)
    path = known.trace
    x, _ = known.batch(known.spread)
    assert path.stage.name == "pgd" and path.loss is margin and known.loss_name == "margin"
    assert path.sizes.shape == (7, 6) and (path.sizes == 42).all() and (path.clean == 42).all()
    assert (path.margin_clean == 42).all()
    assert torch.allclose(path.before, -2 * model(x)[:, 0])
    assert torch.allclose(path.after, path.before + 6 * 13 * 0.1, atol=1e-4)
    assert path.risen.all() and not path.blind.any() and not known.saturated
    # Seven steps, two gradients of the original and two points judged; then four forward and one backward.
    assert (known.forwards, known.backwards) == (6 * (7 + 1 + 2), 6 * (7 + 2))
    assert known.trace is path and known.differences is known.differences
    assert (known.forwards, known.backwards) == (6 * (10 + 4), 6 * (9 + 1))
    seen = known.differences
    assert len(seen) == 6 and not (seen.silent | seen.stepped | seen.wrong).any()
    assert not seen.cut and not seen.astray and known.cutting == []
    assert known.forwards == 6 * 15  # the pass in which layers are seen


@pytest.mark.parametrize(
    ("model", "silent", "stepped", "wrong"),
    [
        (Linear(promise=9.0), False, False, False),  # a tenth of what is promised is enough
        (Linear(promise=11.0), False, False, True),
        (Linear(promise=-1.0, lift=240.0), False, False, True),  # 0.026 is promised beside logits of 246
        (Linear(promise=-1.0, lift=270.0), False, False, False),  # is lost in their rounding
        (Linear(promise=0.0), True, False, False),
        (Linear(blind=True), False, False, False),  # what has no gradient is left as it is
        (Linear(levels=8), True, True, False),
        (Linear(slope=0.0), False, False, False),  # nothing changes, so nothing is hidden
        (Linear(slope=torch.tensor([7.0, 7, 7, -6]), levels=8), True, True, False),  # only if signs differ
        (Flat(0.2), True, True, False),
        (Flat(0.3), False, False, False),  # farther than is looked
    ],
)
def test_differences_of_models_whose_gradient_is_known(model, silent, stepped, wrong):
    x = 0.5 + 0.02 * (rng.uniform(torch.arange(5), (1, 2, 2)) - 0.5)
    label = torch.zeros(5).long()
    rows = Rows.untargeted(x, label, torch.arange(2, 7), torch.arange(5))
    seen = differences(Oracle(model, LINF), x, rows, seed=0)
    for found, wanted in ((seen.silent, silent), (seen.stepped, stepped), (seen.wrong, wrong)):
        assert found.tolist() == [wanted] * 5
    inside = []
    model.register_forward_pre_hook(lambda _, given: inside.append(given[0].aminmax()))
    differences(Oracle(model, LINF), (3 * (x - 0.5)).sign().clamp(0, 1), rows, seed=0)  # corners of the box
    assert inside and all(low >= 0 and high <= 1 for low, high in inside)


@pytest.mark.parametrize(
    ("blind", "followed", "chosen"),
    [
        ((0, 0), "b", "b"),
        ((0, 1), "b", "b"),  # few enough
        ((0, 2), "ba", "a"),
        ((2, 2), "ba", "b"),
        ((3, 2), "ba", "b"),
        ((5, 3, 4), "cba", "b"),
        ((1, None), "ba", "a"),  # it cannot be followed
        ((None,), "a", None),
    ],
)
def test_the_path_of_the_liveliest_attack_is_followed(monkeypatch, blind, followed, chosen):
    monkeypatch.setattr(ATTACKS.get("fgsm"), "single_image", True)  # as those of other libraries are
    stages = [stage().model_copy(update={"name": name}) for name in "abc"[: len(blind)]]
    known = evidence(
        20, stages=[*stages, stage("fgsm")], searching=lambda *a: None, oracle=lambda *a, **k: None
    )
    del known.trace
    assert known.last is stages[-1]
    seen = []

    def along(stage, search, rows, steps):
        seen.append(stage.name)
        assert (rows, steps) == (known.spread, 10)
        count = blind["abc".index(stage.name)]
        return None if count is None else replace(walk(20, blind=count), stage=stage)

    monkeypatch.setattr(module, "trace", along)
    path = known.trace
    assert "".join(seen) == followed and (path and path.stage.name) == chosen
    assert evidence(0, images=3, tried=lambda k: ["pgd!"]).trace is None


def test_a_time_limit_that_left_attacks_out_is_doubted_without_a_sample():
    look = CHECKS.get("time-limit")
    kept = Limited(
        seconds=90, needed=3601, images=20, of=20, stages=("a",), left_out=(), sample=0, sample_of=0, budget=9
    )
    less = {"left_out": ("b", "c")}, {"sample_of": 1}, {"cut_short": ("a",)}
    assert look(evidence(20)) is None and look(evidence(20, limited=kept)) is None
    assert look(evidence(20, limited=kept.model_copy(update={"images": 10}))) is None  # a smaller sample
    for each in less:
        limited = kept.model_copy(update=each)
        doubt = look(evidence(20, limited=limited))
        assert doubt.remedy.flags == "--time-limit 61m" and doubt.detail == limited.shortened
        assert isinstance(look(evidence(20, limited=limited, missing=True)), str)
        assert look(evidence(0, images=3, limited=limited)) is None
