"""The scheduler: who leaves, who moves in, what is counted, what counts as a success."""

import pytest
import torch
from torch import nn

from advkit import rng
from advkit.attacks.apgd_ce import APGDCE
from advkit.attacks.attack import Attack, Rows, State
from advkit.attacks.engine import oracle as oracle_module
from advkit.attacks.engine.oracle import FEWEST, Oracle, ask
from advkit.attacks.engine.pace import Pace
from advkit.attacks.engine.search import Search
from advkit.attacks.engine.searcher import Searcher, searcher
from advkit.attacks.perturb import logits_of, make, perturb
from advkit.config import StrictModel
from advkit.models.mode import evaluation_mode
from advkit.threat import Threat


class Counted(nn.Module):
    """Counts the images that pass."""

    def __init__(self, model):
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x):
        self.images += len(x)
        return self.model(x)


def search(model, data, attack, threat, batch_size=8, precision="float32"):
    counted = Counted(model)
    with evaluation_mode(counted):
        clean = logits_of(counted, data)
        counted.images = 0
        twin = searcher(model, precision, data.images[:4], "gradients") if precision == "bfloat16" else None
        oracle = Oracle(counted, threat, twin, access=attack.access)
        found = []
        Search(
            attack,
            oracle,
            data,
            clean,
            seed=0,
            name="test",
            pace=Pace(torch.device("cpu"), data.shape, batch_size),
            device=torch.device("cpu"),
        ).run(torch.arange(len(data)), found.append)
    return found, oracle, counted


def test_every_sample_is_decided_once_and_every_pass_is_counted(convolutional, monkeypatch):
    monkeypatch.setattr(oracle_module, "FEWEST", 1)  # copies that fill a small batch up are not counted
    model, data = convolutional
    threat = Threat("linf", 0.05)
    found, oracle, counted = search(model, data, make("pgd", threat, {"steps": 6, "restarts": 3}), threat)
    assert sorted(f.index for f in found) == list(range(len(data)))
    assert oracle.forwards == counted.images
    spent = sum(f.forwards for f in found)
    # Siblings at work when a sample falls are cancelled without being billed to it.
    assert spent <= oracle.forwards <= spent + 8 * 7
    assert any(f.broken for f in found) and not all(f.broken for f in found)


def test_a_broken_row_leaves_at_once(linear):
    model, data = linear
    threat = Threat("linf", 0.3)
    found, oracle, _ = search(model, data, make("pgd", threat, {"steps": 40}), threat)
    assert all(f.broken for f in found)
    assert oracle.backwards < 10 * len(data)
    assert all(f.backwards <= f.forwards <= f.backwards + 1 for f in found)


def test_restarts_run_only_where_earlier_ones_failed(linear):
    model, data = linear
    threat = Threat("linf", 1e-4)  # nothing falls
    found, oracle, _ = search(model, data, make("pgd", threat, {"steps": 3, "restarts": 4}), threat)
    assert oracle.backwards == 4 * 3 * len(data)
    assert not any(f.broken for f in found)
    assert all(f.backwards == 12 for f in found)


NEVER = 99
FALLS = torch.tensor([[NEVER, 2, 1], [7, 1, NEVER], [NEVER, NEVER, 0], [NEVER, NEVER, NEVER], [5, 5, 5]])
"""Steps at which the three variants of a sample succeed; the sample's id chooses the line."""


class Scheduled(Attack):
    """Succeeds when `FALLS` says so."""

    steps = 9
    starts = 3

    def start(self, rows: Rows) -> State:
        return State(rows, self.point(rows, 0), rows.label.new_zeros(len(rows)))

    def step(self, state: State, oracle: Oracle) -> State:
        oracle.look(state.x)
        return State(state.rows, self.point(state.rows, state.iteration + 1), state.iteration)

    def point(self, rows, iteration):
        falls = FALLS[rows.sample % len(FALLS), rows.variant] <= iteration
        return torch.where(falls[:, None, None, None], 1 - rows.x0, rows.x0)


@pytest.mark.parametrize("size", [1, 7, 24, 200])
def test_the_first_variant_that_succeeds_is_told_of_whatever_shares_the_batch(linear, size):
    model, data = linear
    threat = Threat("linf", 1.0)
    found, oracle, _ = search(model, data, Scheduled(StrictModel(), threat), threat, batch_size=size)
    assert len(found) == len(data)
    for each in found:
        line = FALLS[each.index % len(FALLS)].tolist()
        variant = next((v for v, step in enumerate(line) if step < Scheduled.steps), 2)
        step = line[variant]
        assert (each.broken, each.variant) == (step < NEVER, variant)
        assert each.iteration == (step + 1 if each.broken else 0)
        assert each.forwards == variant * 10 + min(step + 1, 9) + 1
        assert torch.equal(each.x, 1 - data.images[each.index] if each.broken else data.images[each.index])
    if size == 1:  # nothing is at work beside its siblings
        assert oracle.forwards == sum(each.forwards for each in found)


class Outside(Attack):
    """Asks about points far outside the budget, and ends there too."""

    @property
    def steps(self):
        return 2

    def start(self, rows: Rows) -> State:
        return State(rows, 1 - rows.x0, rows.label.new_zeros(len(rows)))

    def step(self, state: State, oracle: Oracle) -> State:
        oracle.logits(state.x)
        return state


def test_a_misclassified_point_outside_the_budget_is_no_success(linear):
    model, data = linear
    threat = Threat("linf", 1e-4)
    found, _, _ = search(model, data, Outside(StrictModel(), threat), threat)
    assert not any(f.broken for f in found)
    assert all(f.distance <= 1e-4 + 1e-6 for f in found)


class NaNNearTheEdge(nn.Module):
    """NaN logits as soon as anything changes."""

    def __init__(self, x0):
        super().__init__()
        self.x0, self.scale = x0, nn.Parameter(torch.ones(1))

    def forward(self, x):
        same = (x.flatten(1)[:, None] == self.x0.flatten(1)[None]).all(2).any(1)
        logits = torch.stack([x.flatten(1).sum(1) * 0 + 1, x.flatten(1).sum(1) * 0], 1) * self.scale
        return torch.where(same[:, None], logits, torch.nan)


def test_nan_is_no_success(linear):
    _, data = linear
    model = NaNNearTheEdge(data.images)
    x = perturb(model, data.images, torch.zeros(len(data), dtype=torch.int64), Threat("linf", 0.1), "fgsm")
    assert x.isfinite().all()
    found, _, _ = search(model, data, make("noise", Threat("linf", 0.1)), Threat("linf", 0.1))
    assert not any(f.broken for f in found)


class Flaky(nn.Module):
    """Wrong on the first pass over a batch larger than one, right when asked again."""

    def __init__(self, model):
        super().__init__()
        self.model, self.asked = model, 0

    def forward(self, x):
        self.asked += 1
        logits = self.model(x)
        return -logits if self.asked == 2 else logits


def test_a_success_that_the_model_does_not_repeat_is_none(linear):
    model, data = linear
    flaky = Flaky(model)
    threat = Threat("linf", 1e-4)
    with evaluation_mode(flaky):
        clean = logits_of(flaky, data)
        oracle = Oracle(flaky, threat)
        found = []
        Search(
            make("pgd", threat, {"steps": 4}),
            oracle,
            data,
            clean,
            seed=0,
            name="pgd",
            pace=Pace(torch.device("cpu"), data.shape, 100),
            device=torch.device("cpu"),
        ).run(torch.arange(len(data)), found.append)
    assert not any(f.broken for f in found)
    assert all(f.refuted == 1 for f in found)


def test_bfloat16_search_only_reports_what_float32_confirms(convolutional):
    model, data = convolutional
    threat = Threat("linf", 0.05)
    found, _, _ = search(model, data, make("pgd", threat, {"steps": 10}), threat, precision="bfloat16")
    broken = [f for f in found if f.broken]
    assert broken
    with torch.no_grad():
        said = model(torch.stack([f.x for f in broken])).argmax(1)
    assert (said != data.labels[[f.index for f in broken]]).all()


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce"])
def test_a_target_is_reached_where_there_is_one(convolutional, name):
    model, data = convolutional
    with torch.no_grad():
        second = model(data.images).argsort(1)[:, -2]
    x = perturb(model, data.images, data.labels, Threat("linf", 0.15), name, target=second)
    with torch.no_grad():
        said = model(x).argmax(1)
    assert (said == second).sum() > len(data) / 2


class Flat(Oracle):
    """A loss that never rises."""

    def loss_and_grad(self, x, rows, loss, through=None, samples=1):
        return torch.zeros(len(x)), torch.ones_like(x), torch.zeros(len(x), 2)


@pytest.mark.parametrize(("steps", "expected"), [(100, [22, 41, 57, 70, 80, 87, 93, 99])])
def test_apgd_checks_come_when_the_paper_says(steps, expected):
    threat = Threat("linf", 0.1)
    attack = APGDCE(APGDCE.Config(steps=steps), threat)
    x0 = torch.full((3, 1, 2, 2), 0.5)
    label = torch.zeros(3, dtype=torch.int64)
    rows = Rows.untargeted(x0, label, label, rng.keys(0, "t", torch.arange(3)))
    state = attack.start(rows)
    assert torch.allclose((state.x - x0).abs().flatten(1).amax(1), torch.tensor(0.1))
    halved = []
    for iteration in range(steps):
        before = state.step_size.clone()
        state = attack.step(state, Flat(nn.Identity(), threat))
        state.iteration = state.iteration + 1
        if (state.step_size < before).all():
            halved.append(iteration)
    assert halved == expected


def test_an_answer_does_not_depend_on_the_batch(convolutional):
    model, data = convolutional
    for dtype in (torch.float32, torch.bfloat16):
        twin = Searcher(model.eval(), dtype)
        whole = ask(twin, data.images)
        for size in (1, 2, 7, FEWEST, FEWEST + 1):
            assert torch.equal(ask(twin, data.images[:size]), whole[:size])


def test_the_copy_to_search_on_answers_as_the_model_does_and_leaves_it_alone(convolutional):
    model, data = convolutional
    model.eval()
    twin = searcher(model, "bfloat16", data.images, "gradients")
    assert isinstance(twin, Searcher) and twin.dtype == torch.bfloat16
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.allclose(twin(data.images), model(data.images), atol=0.1)


class NoCopy(nn.Module):
    """Cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("no")

    def forward(self, x):
        return x.flatten(1)[:, :3]


def test_a_model_that_cannot_be_copied_is_searched_itself(convolutional):
    model = NoCopy()
    assert searcher(model, "bfloat16", convolutional[1].images, "gradients") is model


def test_rows_aim_at_the_likeliest_wrong_classes_in_order(convolutional):
    model, data = convolutional
    aims = {}

    class Noting(Outside):
        targets = 3

        def start(self, rows):
            for sample, variant, aim in zip(rows.sample, rows.variant, rows.aim, strict=True):
                aims[int(sample), int(variant)] = int(aim)
            return super().start(rows)

    search(model, data, Noting(StrictModel(), Threat("linf", 1e-6)), Threat("linf", 1e-6))
    with torch.no_grad():
        order = model.eval()(data.images).argsort(dim=1, descending=True)
    for sample in range(len(data)):
        assert [aims[sample, variant] for variant in range(3)] == order[sample, 1:4].tolist()


def test_an_attack_is_shown_no_more_than_it_may_see(linear):
    model, data = linear
    oracle = Oracle(model, Threat("linf", 0.1), access="decisions")
    assert oracle.decisions(data.images).equal(data.labels)
    with pytest.raises(PermissionError, match="sees decisions asked for scores"):
        oracle.logits(data.images)


@pytest.mark.parametrize(
    ("seconds", "best"), [((1, 2, 4, 8), 64), ((4, 4.5, 5, 6), 512), ((4, 8, 9, 18), 256)]
)
def test_the_pace_settles_on_the_size_with_the_least_time_per_row(seconds, best):
    pace = Pace(torch.device("cpu"), (1, 28, 28))
    for _ in range(40):
        size = pace.size(True)
        pace.saw(True, size, dict(zip((64, 128, 256, 512), seconds, strict=True))[size])
        pace.saw(True, size - 1, 0.0)  # a batch that is not full says nothing
    assert pace.size(True) == best
    assert pace.size(False) == 64


def test_the_nearest_success_is_kept(linear):
    model, data = linear
    threat = Threat("linf", 0.3)
    attack = make("pgd", threat, {"steps": 30, "step_size": 0.02, "start": "original"})
    with evaluation_mode(model):
        clean = logits_of(model, data)
        oracle = Oracle(model, threat, nearest=True)
        found = []
        pace = Pace(torch.device("cpu"), data.shape, 16)
        Search(attack, oracle, data, clean, seed=0, name="t", pace=pace, device=torch.device("cpu")).run(
            torch.arange(len(data)), found.append
        )
    exact = (clean[:, 1].abs() / model.weight.abs().sum()).detach()
    for f in found:
        assert f.broken and f.backwards == 30
        assert float(exact[f.index]) <= f.distance + 1e-6 <= float(exact[f.index]) + 0.0201


def test_undecided_work_is_told_in_samples(linear, monkeypatch):
    monkeypatch.setattr("advkit.attacks.engine.search.TELL_EVERY", 0.0)
    model, data = linear
    threat = Threat("linf", 1e-6)  # nothing falls, so every sample goes through all steps of both restarts
    attack = make("pgd", threat, {"steps": 5, "restarts": 2})
    with evaluation_mode(model):
        search = Search(
            attack,
            Oracle(model, threat),
            data,
            logits_of(model, data),
            seed=0,
            name="t",
            pace=Pace(torch.device("cpu"), data.shape, len(data)),
            device=torch.device("cpu"),
        )
        told: list[float] = []
        search.run(torch.arange(len(data)), lambda found: None, told.append)
    assert told == pytest.approx([len(data) * step / 10 for step in (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)])
