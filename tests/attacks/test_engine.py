"""The engine beside a program that works on one sample, one variant and one question after the other."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advkit.attacks.attack import Attack, Rows, State
from advkit.attacks.engine import search as engine
from advkit.attacks.engine.batch_size import BatchSizeTuner
from advkit.attacks.engine.oracle import FEWEST, Oracle, RowBuffer, query
from advkit.attacks.engine.search import Search, run_fixed
from advkit.attacks.engine.search_model import SearchModel, search_model
from advkit.attacks.losses.logit_difference import logit_difference
from advkit.attacks.losses.margin import margin
from advkit.attacks.perturb import logits_of, make, perturb
from advkit.core import rng
from advkit.core.config import StrictModel
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.evaluation.evaluate import evaluate
from advkit.models.black_box import BlackBox

CPU = torch.device("cpu")
THREAT = Threat("linf", 2 / 16)
CLASSES = 4
ACCESS = {
    "query": "none", "decisions": "decisions", "scores": "scores", "several": "scores",
    "gradients": "gradients", "through": "gradients", "jacobian": "gradients",
    "single_image_logits": "gradients",
}  # fmt: skip
"""The questions to an oracle, and what an attacker must be allowed to see for them."""


class Exact(nn.Module):
    """Logits of small whole weights: on pixels that are multiples of 1/16 no rounding occurs. Blind where the
    first pixel is 1/16."""

    def __init__(self, seed):
        super().__init__()
        self.weight = nn.Parameter(rng.integers(torch.tensor([seed]), (4, CLASSES), 9)[0].float() - 4)

    def forward(self, x):
        flat = x.flatten(1)
        return torch.where(flat[:, :1] == 1 / 16, torch.nan, (flat - 0.5) @ self.weight)


def flipped(x):
    return x.flip(3)


@dataclass
class Trail(State):
    """What the row has been told so far, in one number, which decides where it goes next."""

    told: torch.Tensor
    best: torch.Tensor


class Walk(Attack):
    """Jumps about inside and outside of the budget and the box, and asks one kind of question."""

    steps, starts, targets, many = 4, 1, 0, 1

    def __init__(self, kind, threat=THREAT, samples=1, **more):
        super().__init__(StrictModel(), threat)
        self.kind, self.samples, self.access, self.single_image = (
            kind,
            samples,
            ACCESS[kind],
            kind == "single_image_logits",
        )
        self.loss = logit_difference if more.get("targets") else margin
        for name, value in more.items():
            setattr(self, name, value)

    def points(self, rows, told, many):
        jumps = rng.integers(rng.step(rows.key, told), (many, *rows.x0.shape[1:]), 7) - 3
        x = rows.x0[:, None] + jumps / 16
        if self.kind == "several":  # these must be inside
            x = (rows.x0[:, None] + (x - rows.x0[:, None]).clamp(-2 / 16, 2 / 16)).clamp(0, 1)
        return x

    def start(self, rows):
        zero = rows.label.new_zeros(len(rows))
        return Trail(rows, self.points(rows, zero, 1)[:, 0], zero, zero.clone(), zero.float() - 3)

    def step(self, state, oracle):
        rows, x, best, kind = state.rows, state.x, state.best, self.kind
        if kind == "query":
            said = [x[:, 0, 0] * 0 if oracle.query(x) is None else None]
        elif kind == "decisions":
            said = [oracle.decisions(x)[:, None]]
        elif kind == "scores":
            said = [oracle.logits(x)]
        elif kind == "several":
            x = self.points(rows, state.told, self.many)
            asked = rng.integers(rng.step(rows.key, state.told + 1), (self.many,), 3) > 0
            asked[:, -1] |= ~asked.any(1)
            found, first, value = oracle.first_better(x, asked, rows, self.loss, best)
            best, said = torch.where(found, value, best), [found[:, None], first[:, None]]
        elif kind == "jacobian":
            said = oracle.jacobian(x, lambda logits: torch.stack([logits[:, 0], logits[:, 1:].sum(1)], 1))
        elif kind == "single_image_logits":
            said = [x[:, 0, 0]]
            for ask_ in range(3):
                near = self.points(rows, state.told + ask_, 3)[0].requires_grad_(ask_ != 1)
                logits = oracle.single_image_logits(near)
                if ask_ != 1:
                    (grad,) = torch.autograd.grad(logits.nan_to_num().square().sum(), near)
                    said.append(grad.sum(0))
                if oracle.adversarial_found:
                    break
        else:
            through = flipped if kind == "through" else None
            said = oracle.loss_and_grad(x, rows, self.loss, through, self.samples)
        told = state.told + 1
        for each in said:
            flat = (each.double().reshape(len(told), -1).nan_to_num(0.5) * 256).long()
            told = told * 31 + (flat * torch.arange(1, flat.shape[1] + 1)).sum(1)
        return Trail(rows, self.points(rows, told, 1)[:, 0], state.iteration, told, best)


class Plain:
    """The questions, answered for a single row. Every point is judged by itself."""

    def __init__(self, model, row, searched, blur, nearest, votes):
        self.model, self.row, self.searched, self.blur = model, row, searched, blur
        self.nearest, self.votes = nearest, votes
        self.forwards = self.backwards = self.refuted = self.step = 0
        self.undefined = False
        self.margin, self.bar, self.won, self.radius = -math.inf, -math.inf, None, THREAT.eps + 1e-6

    def distance(self, x):
        return float((x - self.row.x0).abs().max())

    def margin_at(self, logits):
        z, target_class = logits[0].tolist(), self.row.target_class
        if any(map(math.isnan, z)):
            return math.nan
        about = int(self.row.label if target_class is None else target_class)
        return (max(z[:about] + z[about + 1 :]) - z[about]) * (1 if target_class is None else -1)

    def look(self, x, logits):
        """Whether logits of a point (1, C, H, W) of the ball are numbers."""
        inside = self.distance(x) <= THREAT.eps + 1e-6 and float(x.min()) >= 0 and float(x.max()) <= 1
        self.undefined |= inside and bool(logits.isnan().any())

    def judge(self, x, logits, late=0):
        """What is noticed of a point (1, C, H, W)."""
        self.look(x, logits)
        near, away = self.margin_at(logits), self.distance(x)
        boxed = float(x.min()) >= 0 and float(x.max()) <= 1
        if not boxed or math.isnan(near) or away > self.radius:
            return
        doubt = -self.blur * float(logits.abs().max())
        if not self.nearest:
            self.margin = max(self.margin, near)
        if near > doubt and near > self.bar and (away < self.radius if self.nearest else self.won is None):
            self.won = SimpleNamespace(x=x.detach(), at=self.step + late, margin=near, clearly=near > -doubt)
            self.radius = away if self.nearest else self.radius

    def confirmed(self, x):
        self.forwards += self.votes
        with torch.no_grad():
            logits = self.model(x)
        wanted, said = (
            int(self.row.label if self.row.target_class is None else self.row.target_class),
            int(logits.argmax()),
        )
        inside = self.distance(x) <= THREAT.eps + 1e-6 and float(x.min()) >= 0 and float(x.max()) <= 1
        return inside and not logits.isnan().any() and (said == wanted) == (self.row.target_class is not None)

    def query(self, x):
        self.logits(x)

    def logits(self, x):
        self.forwards += 1
        logits = self.searched(x).detach()
        self.judge(x, logits)
        return logits

    def decisions(self, x):
        return self.logits(x).argmax(1)

    def first_better(self, x, asked, rows, loss, best):
        tried = []
        for place in range(x.shape[1]):
            if not asked[0, place]:
                continue
            self.forwards += 1
            logits = self.searched(x[:, place]).detach()
            self.look(x[:, place], logits)
            tried.append((place, logits, float(loss(logits, rows.label, rows.search_target))))
            if tried[-1][2] > float(best):
                break
        judged = [one for one in tried if not math.isnan(self.margin_at(one[1]))]
        if judged:  # of all these the one nearest to success
            place, logits, _ = max(judged, key=lambda one: self.margin_at(one[1]))
            self.judge(x[:, place], logits, late=place)
        place, _, value = tried[-1]
        place = place if value > float(best) else x.shape[1] - 1
        return torch.tensor([value > float(best)]), torch.tensor([place]), torch.tensor([value])

    def loss_and_grad(self, x, rows, loss, through, samples):
        self.forwards, self.backwards = self.forwards + samples, self.backwards + samples
        x = x.clone().requires_grad_(True)
        logits = self.searched(x if through is None else through(x))
        value = loss(logits, rows.label, rows.search_target)
        (grad,) = torch.autograd.grad(value.sum(), x)
        if through is None:
            self.judge(x.detach(), logits.detach())
        return value.detach(), grad, logits.detach()

    def jacobian(self, x, outputs):
        self.forwards += 1
        jacobian = torch.autograd.functional.jacobian(lambda x: outputs(self.searched(x)), x)
        self.backwards += jacobian.shape[1]
        logits = self.searched(x).detach()
        self.judge(x, logits)
        return outputs(logits), jacobian[:, :, 0], logits

    def single_image_logits(self, x):
        self.forwards += len(x)
        if x.requires_grad:
            self.backwards += len(x)
        with torch.set_grad_enabled(x.requires_grad):
            logits = self.model(x)

        def merit(i):
            one, said = x[i : i + 1].detach(), logits[i : i + 1].detach()
            self.look(one, said)
            near = self.margin_at(said)
            if math.isnan(near) or self.distance(one) > self.radius or one.min() < 0 or one.max() > 1:
                return -math.inf
            if self.nearest:
                return -self.distance(one) if near > max(self.bar, 0) else -math.inf
            return near

        best = max(range(len(x)), key=merit)
        self.judge(x[best : best + 1].detach(), logits[best : best + 1].detach())
        return logits

    @property
    def adversarial_found(self):
        if self.nearest or self.won is None:
            return False
        if self.confirmed(self.won.x):
            return True
        self.refuted, self.bar, self.won = self.refuted + self.won.clearly, self.won.margin, None
        return False


def one_variant(attack, plain):
    """What came of the only row of `plain`, as fields of a `Found`."""
    state = attack.start(plain.row)
    for step in range(1, attack.steps + 1):
        state = attack.step(state, plain)
        state.iteration = state.iteration + 1
        plain.step, finished = step, step == attack.steps
        if not (finished or (plain.won and not plain.nearest)):
            continue
        last = (plain.row.x0 + (state.x - plain.row.x0).clamp(-THREAT.eps, THREAT.eps)).clamp(0, 1)
        won, x = plain.won, last if plain.won is None else plain.won.x
        iteration, broken = (step if won is None else won.at + 1), plain.confirmed(x)
        if won is not None and not broken:
            plain.refuted, plain.bar, plain.won = plain.refuted + won.clearly, won.margin, None
            if not finished:
                continue
            farther = [(plain.row.x0 + f * (won.x - plain.row.x0)).clamp(0, 1) for f in (1.0001, 1.001, 1.01)]
            for other in farther if plain.nearest else [last]:
                if plain.confirmed(other):
                    x, broken, iteration = other, True, iteration if plain.nearest else step
                    break
        told = {
            "broken": broken,
            "iteration": iteration if broken else 0,
            "x": x[0],
            "refuted": plain.refuted,
            "undefined": plain.undefined,
        }
        told |= {"distance": plain.distance(x), "forwards": plain.forwards, "backwards": plain.backwards}
        return told | {"margin": plain.margin if math.isfinite(plain.margin) else None}
    return None


def expected(attack, model, data, index, target_class, *, nearest, **how):
    """What is told of a sample: of its first variant that breaks it, or its nearest, or its last."""
    clean, ended = logits_of(model, data)[index : index + 1], []
    targets = 0 if target_class is not None else min(attack.targets, CLASSES - 1)
    for variant in range(attack.starts * max(targets, 1)):
        search_target = None if target_class is None else target_class[index : index + 1]
        if targets:
            wrong = [k for k in clean[0].argsort(descending=True, stable=True) if k != data.labels[index]]
            search_target = wrong[variant % targets][None]
        ids, variants = data.ids[index : index + 1], torch.tensor([variant])
        key = rng.keys(5, "walk", ids, variants)
        x0, label = data.images[index : index + 1], data.labels[index : index + 1]
        row = Rows(
            x0,
            label,
            None if target_class is None else search_target,
            search_target,
            clean,
            ids,
            variants,
            key,
        )
        ended.append(one_variant(attack, Plain(model, row, nearest=nearest, **how)) | {"variant": variant})
        if ended[-1]["broken"] and not nearest:
            break
    told = ended[-1]
    if nearest:
        told = min(ended, key=lambda one: (not one["broken"], one["distance"], one["variant"]))
    margins = [one["margin"] for one in ended if one["margin"] is not None]
    summed = {name: sum(one[name] for one in ended) for name in ("refuted", "forwards", "backwards")}
    summed["undefined"] = any(one["undefined"] for one in ended)
    return told | summed | {"margin": max(margins, default=None), "index": index}


def exact_data(model, count):
    """Images of multiples of 1/16 which the model tells apart, a stretch of a longer set."""
    images = rng.integers(torch.arange(300), (1, 2, 2), 13).float().add(2) / 16
    logits = model(images).detach()
    best, second = logits.topk(2).values.T
    keep = ((best - second > 0) & (best - second < 1.0)).nonzero()[:, 0][:count]
    names = tuple(map(str, range(CLASSES)))
    return Data("exact", "all", images[keep], logits[keep].argmax(1), names, 1000 + torch.arange(count))


def searched_all(attack, oracle, model, data, size, target_class=None):
    """All that a search reports, by the place of the sample."""
    found = []
    how = {
        "seed": 5,
        "name": "walk",
        "tuner": BatchSizeTuner(CPU, data.shape, size),
        "device": CPU,
        "target_class": target_class,
    }
    Search(attack, oracle, data, logits_of(model, data), **how).run(torch.arange(len(data)), found.append)
    assert len({one.index for one in found}) == len(found)
    return {one.index: one for one in found}


class Copy(nn.Module):
    """What is searched on: nearly the same function, and perhaps said to be in bfloat16."""

    def __init__(self, model, dtype):
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, x):
        return self.model(x) + x[:, :1, 0, 0] * torch.tensor([0.0, 0.5, 0.0, -0.5])


class Fickle(Copy):
    """Answers otherwise where gradients are asked for."""

    def forward(self, x):
        return super().forward(x) if torch.is_grad_enabled() else self.model(x)


PLANS = [
    ({"starts": 3, "many": 2}, 1, None),
    ({"targets": 9, "starts": 2, "samples": 2, "many": 3}, 5, torch.bfloat16),
    ({"target_class": True, "starts": 2}, 100, torch.float32),
]
"""The attack's plan, the rows at work, and what arithmetic the copy to search on is said to have."""


@pytest.mark.parametrize(("plan", "size", "dtype"), PLANS, ids=["restarts", "targets", "target_class"])
@pytest.mark.parametrize("nearest", [False, True], ids=["first", "nearest"])
@pytest.mark.parametrize("kind", ACCESS)
def test_what_is_told_is_what_one_question_after_another_tells(kind, nearest, plan, size, dtype):
    model = Exact(3).eval()
    data = exact_data(model, 8)
    plan = dict(plan)
    target_class = (data.labels + 1) % CLASSES if plan.pop("target_class", False) else None
    attack = Walk(kind, **plan)
    if kind == "single_image_logits" and dtype is not None:
        model = Fickle(model, None)
    copy = model if dtype is None or kind == "single_image_logits" else Copy(model, dtype)
    votes = 3 if size == 100 else 1
    oracle = Oracle(model, THREAT, copy, access=attack.access, nearest=nearest, votes=votes)
    found = searched_all(attack, oracle, model, data, size, target_class)
    blur = 2**-7 if dtype == torch.bfloat16 and kind != "single_image_logits" else 0.0
    how = {"searched": copy, "blur": blur, "nearest": nearest, "votes": votes}
    assert sorted(found) == list(range(len(data)))
    for index, one in found.items():
        wanted = expected(attack, model, data, index, target_class, **how)
        got = {name: getattr(one, name) for name in wanted}
        assert torch.equal(got.pop("x"), wanted.pop("x"))
        assert got == pytest.approx(wanted, abs=1e-6)
    spent = [sum(getattr(one, name) for one in found.values()) for name in ("forwards", "backwards")]
    total = [oracle.forwards, oracle.backwards]
    if size == 1 and kind != "several":
        assert total == spent
    assert all(a >= b for a, b in zip(total, spent, strict=True))


class Passes(nn.Module):
    """Logits of the classes 0 and 1 that depend on how many passes there were."""

    def __init__(self, factors):
        super().__init__()
        self.factors, self.seen = factors, []

    def forward(self, x):
        self.seen.append(len(x))
        factor = self.factors[(len(self.seen) - 1) % len(self.factors)]
        return torch.stack([x.flatten(1).sum(1) * 0, factor * (x.flatten(1) ** 2).sum(1)], 1)


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("through", [None, flipped])
def test_several_passes_are_averaged(samples, through):
    factors = [3.0, -1.0, 8.0, 2.0]
    model = Passes(factors)
    x, labels = torch.arange(40.0).view(20, 1, 1, 2) / 64, torch.zeros(20, dtype=torch.int64)
    oracle, mean = Oracle(model, THREAT), sum(factors[:samples]) / samples
    rows = Rows.untargeted(x, labels, labels, labels)
    values, grad, logits = oracle.loss_and_grad(x, rows, margin, through, samples)
    assert torch.equal(values, mean * (x**2).flatten(1).sum(1)) and torch.equal(grad, 2 * mean * x)
    assert torch.equal(logits, torch.stack([0 * values, values], 1))
    assert oracle.forwards == oracle.backwards == 20 * samples and model.seen == [20] * samples
    climbing = Oracle(Passes([1.0]), THREAT, loss=lambda logits, label, search_target: -3 * logits[:, 1])
    assert torch.equal(climbing.loss_and_grad(x, rows, margin)[1], -6 * x)


@pytest.mark.parametrize("name", ["pgd", "apgd", "apgd-ce", "apgd-dlr", "apgd-t"])
def test_attacks_average_as_many_passes_as_they_are_told(name, convolutional):
    model, data = convolutional
    oracle = Oracle(model.eval(), THREAT)
    attack = make(name, THREAT, {"steps": 3, "samples": 4})
    rows = Rows.untargeted(data.images, data.labels, data.ids, data.ids)
    run_fixed(attack, oracle, replace(rows, search_target=(data.labels + 1) % 5))
    assert oracle.forwards == oracle.backwards == 4 * attack.steps * len(data)


@pytest.mark.parametrize(
    ("factors", "votes"), [([4.0, -1.0, -0.5, -0.5, -3.0], n) for n in (1, 2, 5)] + [([1e-9], 1)]
)
def test_the_mean_probabilities_of_all_votes_decide_and_of_one_vote_the_logits(factors, votes):
    x, labels = torch.arange(1, 41.0).view(40, 1, 1, 1) / 40, torch.zeros(40, dtype=torch.int64)
    squares = x.flatten().double().numpy() ** 2
    share = np.mean([1 / (1 + np.exp(-factor * squares)) for factor in factors[:votes]], axis=0)
    for target_class in (None, torch.zeros_like(labels), torch.ones_like(labels)):
        oracle = Oracle(Passes(factors), Threat("linf", 0.1), votes=votes)
        rows = replace(Rows.untargeted(x, labels, labels, labels), target_class=target_class)
        met = (share > 0.5) == (target_class is None or bool(target_class[0]))
        assert oracle.confirm(x, rows).tolist() == met.tolist()
        assert oracle.forwards == 40 * votes
        assert not oracle.confirm(x + 0.2, rows).any() and not oracle.confirm(x * torch.nan, rows).any()


@pytest.mark.parametrize("access", ["none", "decisions", "scores", "gradients"])
def test_an_attack_is_shown_no_more_than_it_may_see(access):
    levels = ["none", "decisions", "scores", "gradients"]
    for kind, needed in ACCESS.items():
        attack, model = Walk(kind), Exact(3)
        data = exact_data(model, 1)
        rows = Rows.untargeted(data.images, data.labels, data.ids, data.ids)
        oracle = Oracle(model, THREAT, access=access)
        if levels.index(needed) <= levels.index(access):
            run_fixed(attack, oracle, rows)
            continue
        with pytest.raises(PermissionError):
            run_fixed(attack, oracle, rows)
        assert oracle.forwards == 0


def test_every_backward_pass_of_foreign_code_is_counted_and_parameters_are_left_alone():
    model, x = Exact(3), torch.full((5, 1, 2, 2), 0.25, requires_grad=True)
    oracle = Oracle(model, THREAT)
    logits = oracle.single_image_logits(x)
    for k in range(CLASSES):
        (grad,) = torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)
        assert torch.equal(grad, model.weight[:, k].view(1, 1, 2, 2).expand_as(x))
    assert (oracle.forwards, oracle.backwards) == (5, 20)
    assert not oracle.single_image_logits(x.detach()).requires_grad and oracle.forwards == 10
    assert model.weight.grad is None and not oracle.adversarial_found


def test_every_point_that_is_shown_is_paid_for_and_only_those_up_to_the_first_better_are_billed():
    model, data = Exact(3), exact_data(Exact(3), 20)
    rows = Rows.untargeted(data.images, data.labels, data.ids, data.ids)
    x = data.images[:, None].expand(-1, 3, -1, -1, -1)
    asked = torch.tensor([[True, False, True]]).repeat(20, 1)
    for reached, found, place, billed in ((-9.0, True, 0, 1), (9.0, False, 2, 2)):
        oracle = Oracle(model, THREAT, access="scores")
        buffer = RowBuffer.of(State(rows, data.images, data.ids * 0), THREAT)
        oracle.bind(buffer)
        said = oracle.first_better(x, asked, rows, margin, torch.full((20,), reached))
        assert [set(part.tolist()) for part in said[:2]] == [{found}, {place}]
        assert torch.equal(said[2], margin(model(data.images), data.labels))
        assert oracle.forwards == 40 and set(buffer.forwards.tolist()) == {billed}


@pytest.mark.parametrize("many", [1, 3])
def test_what_is_not_asked_has_no_undefined_answer(many):
    model, data = Exact(3), exact_data(Exact(3), 20)
    rows = Rows.untargeted(data.images, data.labels, data.ids, data.ids)
    oracle, x = Oracle(model, THREAT, access="scores"), data.images[:, None].repeat(1, many, 1, 1, 1)
    asked = (data.ids % 2 == 0)[:, None].repeat(1, many)
    for broken in (False, True):
        buffer = RowBuffer.of(State(rows, data.images, data.ids * 0), THREAT)
        oracle.bind(buffer)
        if broken:
            oracle.search_model = lambda points: model(points) * torch.nan
        oracle.first_better(x, asked, rows, margin, torch.full((20,), -9.0))
        assert torch.equal(buffer.undefined, asked[:, 0] & broken)


class Unmoved(nn.Module):
    """What it says does not depend on the image, or not so that a gradient could tell."""

    def __init__(self, cut):
        super().__init__()
        self.cut, self.weight = cut, nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x.detach().flatten(1)[:, :2] if self.cut else self.weight.expand(len(x), 2)


@pytest.mark.parametrize("cut", [False, True])
def test_where_the_graph_is_cut_the_gradient_is_zero(cut):
    oracle, x = Oracle(Unmoved(cut), THREAT), torch.full((3, 1, 2, 2), 0.5)
    rows = Rows.untargeted(x, torch.zeros(3, dtype=torch.int64), torch.arange(3), torch.arange(3))
    assert not oracle.loss_and_grad(x, rows, margin)[1].any()
    assert not oracle.jacobian(x, lambda logits: logits)[1].any()
    if not cut:
        x.requires_grad_(True)
        assert not torch.autograd.grad(oracle.single_image_logits(x).sum(), x)[0].any()
    assert (oracle.forwards, oracle.backwards) == ((6, 9) if cut else (9, 12))


def test_an_attack_may_write_into_a_gradient():
    """PyTorch repeats one number for all pixels where a network takes their sum."""
    model = Passes([-1.0])
    model.forward = lambda x: torch.stack([x.sum((1, 2, 3)), torch.zeros(len(x))], 1)
    oracle, x, ids = Oracle(model, THREAT), torch.full((FEWEST, 1, 2, 2), 0.5), torch.arange(FEWEST)
    rows = Rows.untargeted(x, 0 * ids, ids, ids)
    for grad in (oracle.loss_and_grad(x, rows, margin)[1], oracle.jacobian(x, lambda z: z[:, :1])[1][:, 0]):
        assert grad.abs().eq(1).all()
        grad[0, 0, 0, 0] = 7.0
        assert grad.eq(7).sum() == 1


def test_a_tie_is_no_success_and_a_success_within_rounding_is_not_clear():
    x, label = torch.zeros(1, 1, 1, 2), torch.zeros(1, dtype=torch.int64)
    state = State(Rows.untargeted(x, label, label, label), x, label)
    buffer, oracle = RowBuffer.of(state, THREAT), Oracle(Passes([1.0]), THREAT, nearest=True)
    oracle.bind(buffer)
    oracle.single_image_logits(torch.tensor([0.0, 0.1]).view(2, 1, 1, 1).expand(-1, -1, -1, 2))
    assert buffer.success.all() and (buffer.success_x == 0.1).all()  # the tie is nearer
    for other, clear in ((64.0, False), (64.25, True)):  # 64 / 128 is what bfloat16 may round off
        model, buffer = Unmoved(False), RowBuffer.of(state, THREAT)
        model.weight, model.dtype = nn.Parameter(torch.tensor([63.5, other])), torch.bfloat16
        oracle = Oracle(model, THREAT, access="scores")
        oracle.bind(buffer)
        oracle.logits(x)
        assert buffer.success.all() and buffer.success_certain.item() == clear


class Edge(nn.Module):
    """Class 1 where the first pixel is above an edge."""

    def __init__(self, edge):
        super().__init__()
        self.edge = edge

    def forward(self, x):
        over = x.flatten(1)[:, 0] - self.edge
        return torch.stack([0 * over, over], 1)


class Moves(Walk):
    """Asks for scores of the original moved by given amounts, one a step."""

    def __init__(self, *moves):
        super().__init__("scores", Threat("linf", 0.25), steps=len(moves))
        self.moves = moves

    def step(self, state, oracle):
        x = state.rows.x0 + self.moves[int(state.iteration[0])]
        oracle.logits(x)
        return State(state.rows, x, state.iteration)


def moved(moves, searched, edge, *, nearest=False, every=1):
    """What is found on an image of class 0 where the search sees another edge than the model has; the nearest
    success comes to the edge of the box."""
    image = torch.tensor([0.5, 0.9 if nearest else 0.5]).view(1, 1, 1, 2)
    data = Data("two", "all", image, torch.zeros(1).long(), ("a", "b"), torch.arange(1))
    attack, model, found = Moves(*moves), Edge(edge), []
    oracle = Oracle(model, attack.threat, Edge(searched), access="scores", nearest=nearest)
    how = {"seed": 0, "name": "m", "tuner": BatchSizeTuner(CPU, data.shape, 1), "device": CPU}
    search = Search(attack, oracle, data, logits_of(model, data), **how)
    search.check_every = every
    search.run(torch.arange(1), found.append)
    return found[0]


@pytest.mark.parametrize(
    ("needed", "factor"), [(0.99, 1), (1.00005, 1.0001), (1.0005, 1.001), (1.005, 1.01), (1.02, None)]
)
def test_a_nearest_success_may_move_a_little_farther_to_be_confirmed(needed, factor):
    one = moved([0.0, 0.2, 0.1, 0.15], 0.55, 0.5 + 0.1 * needed, nearest=True)
    assert one.broken == (factor is not None) and one.iteration == (3 if factor else 0)
    assert one.distance == pytest.approx(0.1 * (factor or 1), rel=1e-5)


def test_a_refused_success_is_not_asked_again_and_the_last_step_may_still_succeed():
    same = moved([0.1] * 4, 0.55, 2.0)
    assert (same.broken, same.refuted, same.forwards) == (False, 1, 4 + 1 + 1)
    late = moved([0.1, 0.0, 0.0, 0.2], 0.55, 0.65, every=4)
    assert (late.broken, late.refuted, late.iteration) == (True, 1, 4)
    assert late.distance == pytest.approx(0.2)


def test_there_are_no_more_targets_than_wrong_classes():
    model = Exact(3)
    data = exact_data(model, 1)
    how = {"seed": 0, "name": "m", "tuner": BatchSizeTuner(CPU, data.shape, 1), "device": CPU}
    for targets, variants in ((0, 2), (2, 4), (3, 6), (4, 6), (9, 6)):
        attack = Walk("scores", targets=targets, starts=2)
        assert Search(attack, Oracle(model, THREAT), data, logits_of(model, data), **how).variants == variants


@pytest.mark.parametrize("rows", [1, 5, FEWEST - 1, FEWEST, 3 * FEWEST])
def test_small_passes_are_filled_up_with_copies_that_nobody_counts(rows):
    model, x = Passes([1.0]), torch.arange(float(rows)).view(rows, 1, 1, 1)
    oracle = Oracle(model, THREAT, access="scores")
    assert torch.equal(oracle.logits(x)[:, 1], x.flatten() ** 2)
    assert model.seen == [max(rows, 16)] and oracle.forwards == rows


@pytest.mark.parametrize(
    ("device", "shape", "first", "many"),
    [
        ("cpu", (1, 28, 28), 64, 4), ("cpu", (3, 32, 63), 64, 4), ("cpu", (3, 64, 64), 16, 4),
        ("cpu", (3, 224, 224), 16, 2), ("cpu", (3, 299, 299), 16, 1),
        ("cuda", (3, 32, 32), 512, 6), ("cuda", (3, 128, 128), 32, 6),
    ],
)  # fmt: skip
def test_the_pace_tries_larger_sizes_while_they_pay(device, shape, first, many):
    sizes = [first * 2**rung for rung in range(many)]
    tuner = BatchSizeTuner(torch.device(device), shape)
    for size in sizes:
        for _ in range(3):  # three looks at each
            assert tuner.size(False) == size and tuner.size(True) == sizes[0]
            tuner.record(False, size - 1, 0.0)  # a batch that is not full says nothing
            tuner.record(False, size, 1.0)
    for seconds in (0.0, 1e9):
        tuner.record(False, sizes[-1], seconds)
        assert tuner.size(False) == sizes[-1]  # it stays where it has settled
    fixed = BatchSizeTuner(torch.device(device), shape, 7)
    for _ in range(9):
        fixed.record(True, 7, 1.0)
        assert fixed.size(True) == fixed.size(False) == 7


@given(st.lists(st.integers(1, 60), min_size=12, max_size=12))
@settings(max_examples=60)
def test_the_pace_settles_on_the_least_time_per_row(seconds):
    """A size must be 3 % faster than the best smaller one; two in a row that are not end the trials."""
    tuner, sizes = BatchSizeTuner(CPU, (1, 28, 28)), [64, 128, 256, 512]
    each = dict(zip(sizes, zip(*[iter(seconds)] * 3, strict=True), strict=True))
    least = {size: min(each[size]) / size for size in sizes}
    best = 64
    for size in sizes[1:]:
        if size > 4 * best:
            break
        best = size if least[size] < 0.97 * least[best] else best
    for look in range(12):
        tuner.record(True, tuner.size(True), each[tuner.size(True)][look % 3])
    assert tuner.size(True) == best


@pytest.mark.parametrize(
    ("every", "looks"), [(1, range(1, 17)), (4, range(4, 17, 4)), (5, (5, 8, 10, 15, 16))]
)
def test_the_tuner_hears_the_seconds_of_a_step_and_the_caller_how_far_the_work_is(
    every, looks, linear, monkeypatch
):
    """However many steps lie between two looks, and at the last step of a row in any case."""
    model, data = linear
    clock, heard = [0.0], []

    class Ticking(Walk):
        def step(self, state, oracle):
            clock[0] += 1.0
            return super().step(state, oracle)

    class Listening(BatchSizeTuner):
        def record(self, gradients, rows, seconds):
            heard.append((gradients, rows, seconds))

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    attack, told = Ticking("scores", Threat("linf", 1e-9), steps=8, starts=2), []  # nothing falls
    how = {"seed": 0, "name": "t", "tuner": Listening(CPU, data.shape, len(data)), "device": CPU}
    run = Search(attack, Oracle(model, attack.threat), data, logits_of(model, data), **how)
    run.check_every = every
    run.run(torch.arange(len(data)), lambda found: None, told.append)
    assert clock == [16.0] and heard == [(False, len(data), 1.0)] * len(looks)
    assert told == [len(data) * step / 16 for step in looks[:-1]] + [0]


def test_an_answer_does_not_depend_on_the_batch(convolutional):
    model, data = convolutional
    for dtype in (torch.float32, torch.bfloat16):
        twin = SearchModel(model.eval(), dtype)
        whole = query(twin, data.images)
        for size in (1, 2, 7, FEWEST, FEWEST + 1):
            assert torch.equal(query(twin, data.images[:size]), whole[:size])


def test_the_copy_to_search_on_answers_as_the_model_does_and_leaves_it_alone(convolutional):
    model, data = convolutional
    model.eval()
    twin = search_model(model, "bfloat16", data.images, "gradients")
    assert isinstance(twin, SearchModel) and twin.dtype == torch.bfloat16
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert torch.allclose(twin(data.images), model(data.images), atol=0.1)
    assert twin(data.images).dtype == torch.float32


class Skewed(nn.Module):
    """A copy of it answers otherwise, or there is none."""

    def __init__(self, factor):
        super().__init__()
        self.factor, self.now = factor, 1.0

    def __deepcopy__(self, memo):
        if self.factor is None:
            raise TypeError("no")
        other = Skewed(self.factor)
        other.now = self.factor
        return other

    def forward(self, x):
        return self.now * x.flatten(1)[:, :3] if x.sum() > -1 else x  # a branch, which is not traced


@pytest.mark.parametrize(
    ("factor", "precision", "searched"),
    [
        (None, "float32", None),
        (1.0005, "float32", torch.float32), (1.002, "float32", None), (torch.nan, "float32", None),
        (0.95, "bfloat16", torch.bfloat16), (1.15, "bfloat16", None), (1.0005, "bfloat16", torch.bfloat16),
    ],
)  # fmt: skip
def test_a_copy_that_answers_otherwise_is_not_searched(factor, precision, searched):
    model, x = Skewed(factor), rng.uniform(torch.arange(20), (1, 2, 2))
    twin = search_model(model, precision, x, "scores")
    assert twin is model if searched is None else twin.dtype == searched


class Small(nn.Module):
    """A network on a device that holds no more than some rows; it keeps the sizes of the passes it made."""

    def __init__(self, holds):
        super().__init__()
        self.network, self.holds, self.seen = Exact(3), holds, []

    def forward(self, x):
        if len(x) > self.holds:
            raise torch.cuda.OutOfMemoryError
        self.seen.append(len(x))
        return self.network(x)


@pytest.mark.parametrize("kind", ["decisions", "scores", "gradients"])
@pytest.mark.parametrize("holds", [FEWEST, 30, 63])
def test_rows_that_the_memory_does_not_hold_are_attacked_in_smaller_batches(kind, holds):
    def attacked(model, size):
        found, data = [], exact_data(Exact(3), 60)
        tuner = BatchSizeTuner(CPU, data.shape, size)
        how = {"seed": 0, "name": "m", "tuner": tuner, "device": CPU}
        oracle = Oracle(model, THREAT, access=ACCESS[kind])
        Search(Walk(kind, starts=2), oracle, data, logits_of(model, data, 8), **how).run(
            torch.arange(60), found.append
        )
        return sorted(found, key=lambda one: one.index), tuner.size(kind == "gradients")

    (plain, _), (small, size) = attacked(Small(10**9), 64), attacked(Small(holds), 64)
    assert size == (64 if kind != "gradients" else max(n for n in (64, 32, 16) if n <= holds))
    for one, other in zip(plain, small, strict=True):
        assert torch.equal(one.x, other.x)
        assert replace(one, x=None) == replace(other, x=None)


@settings(max_examples=8)
@given(st.integers(0, 99), st.integers(3, 40), st.integers(1, 9))
def test_each_row_that_a_black_box_is_sent_counts_and_a_later_start_waits_for_an_earlier(seed, limit, size):
    key = rng.step(rng.keys(seed, "images", torch.arange(5)), 0)
    weights, x = rng.normal(key[:1], (64, 3))[0], 0.2 + 0.6 * rng.uniform(key, (1, 8, 8))
    y, sent, found = (x.flatten(1) @ weights).argmax(1), torch.zeros(5).long(), []

    def answer(rows):
        rows = torch.from_numpy(rows)
        near = (rows[:, None] - x).flatten(2).square().sum(2).argmin(1)
        sent.index_add_(0, near, torch.ones_like(near))
        return rows.flatten(1) @ weights

    for rows, restarts in ((size, 1), (3, 1), (size, 2)):
        box, parameters = BlackBox(answer, max_queries=limit), {"queries": 12, "restarts": restarts}
        sent.zero_()
        one = perturb(box, x, y, Threat("l2", 1), "square", parameters=parameters, batch_size=rows)
        assert one.forwards.tolist() == sent.tolist() and 0 < sent.max() <= limit
        found.append(one)
    first, other, more = found
    assert torch.equal(first.x, other.x) and torch.equal(first.forwards, other.forwards)
    for what in ("x", "forwards"):
        assert torch.equal(getattr(first, what)[first.success], getattr(more, what)[first.success])
    assert (more.forwards >= first.forwards).all()
    sent.zero_()
    box, parameters = BlackBox(answer, max_queries=limit), {"square": {"queries": 5}, "simba": {"queries": 9}}
    after = evaluate(box, (x, y), Threat("l2", 1), [*parameters], parameters=parameters, progress=False)
    assert [verdict.forwards for verdict in after.verdicts] == sent.tolist()
    assert sum(stage.forwards for stage in after.stages) == sent.sum() - len(x)  # of the clean images


@pytest.mark.parametrize("seconds", [0, math.inf])
@pytest.mark.parametrize("asked", [False, True])
def test_progress_is_told_to_those_who_ask_and_not_more_often_than_is_said(seconds, asked, monkeypatch):
    monkeypatch.setattr(engine, "REPORT_EVERY", seconds)
    data, shares = exact_data(Exact(3), 4), []
    how = {"seed": 0, "name": "m", "tuner": BatchSizeTuner(CPU, data.shape, 8), "device": CPU}
    search = Search(Walk("gradients"), Oracle(Exact(3), THREAT), data, logits_of(Exact(3), data), **how)
    search.run(torch.arange(4), [].append, shares.append if asked else None)
    assert bool(shares) == (asked and not seconds) and all(0 <= share <= 4 for share in shares)


def test_a_single_row_that_the_memory_does_not_hold_is_an_error():
    data = exact_data(Exact(3), 4)
    how = {"seed": 0, "name": "m", "tuner": BatchSizeTuner(CPU, data.shape, 8), "device": CPU}
    search = Search(Walk("gradients"), Oracle(Small(8), THREAT), data, logits_of(Exact(3), data), **how)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        search.run(torch.arange(4), [].append)


@pytest.mark.parametrize("error", [RuntimeError("a fault of the model"), ValueError("CPUAllocator")])
def test_other_faults_are_not_taken_for_lack_of_memory(error):
    class Faulty(Exact):
        def forward(self, x):
            raise error

    data = exact_data(Exact(3), 4)
    how = {"seed": 0, "name": "m", "tuner": BatchSizeTuner(CPU, data.shape, 8), "device": CPU}
    search = Search(Walk("gradients"), Oracle(Faulty(3), THREAT), data, logits_of(Exact(3), data), **how)
    with pytest.raises(type(error)):
        search.run(torch.arange(4), [].append)


@pytest.mark.parametrize("holds", [FEWEST, 20, 50])
def test_a_pass_without_gradients_is_halved_until_the_memory_holds_it(holds):
    model, x = Small(holds), exact_data(Exact(3), 50).batch(torch.arange(50), CPU)[0]
    with torch.no_grad():
        assert torch.equal(query(model, x), model.network(x))
    assert sum(model.seen) < 50 + 4 * FEWEST and max(model.seen) <= holds
    with pytest.raises(torch.cuda.OutOfMemoryError):
        query(Small(49), x)
