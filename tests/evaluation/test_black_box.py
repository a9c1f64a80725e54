"""Black boxes: what is reported is what was sent, and no limit is exceeded."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advkit
from advkit import BlackBox, Threat
from advkit.attacks.perturb import perturb
from advkit.core import distributed, files
from advkit.core.errors import ConfigError, ModelError, UserError
from advkit.core.runs import RunFolder
from advkit.evaluation.evaluate import _refuse_inner, evaluate
from advkit.evaluation.settings import Evaluation
from advkit.models.black_box import Account
from advkit.models.load import load_model

SHAPE = (1, 4, 4)


class Counted:
    """A linear model of three classes, which notes what it was asked; each row by its nearest original."""

    def __init__(self, seed=0, n=6, fails=(), dies=None):
        generator = np.random.default_rng(seed)
        self.weights = generator.normal(size=(16, 3))
        self.x = generator.uniform(0.2, 0.8, (n, *SHAPE)).astype(np.float32)
        self.y = (self.x.reshape(n, -1) @ self.weights).argmax(1)
        self.fails, self.dies = set(fails), dies
        self.batches, self.each, self.failed = [], np.zeros(n, int), 0

    def __call__(self, x):
        assert x.dtype == np.float32 and x.shape[1:] == SHAPE
        self.batches.append(len(x))
        for row in x:
            self.each[((self.x - row) ** 2).sum((1, 2, 3)).argmin()] += 1
        if self.dies is not None and sum(self.batches) >= self.dies:
            raise KeyboardInterrupt
        if len(self.batches) in self.fails:
            self.failed += len(x)
            raise ConnectionError("reset")
        return x.reshape(len(x), -1) @ self.weights

    @property
    def data(self):
        return torch.from_numpy(self.x), torch.from_numpy(self.y)

    @property
    def rows(self):
        return sum(self.batches)


def checked(asked, result, wall, near=True):
    """What is reported is what was sent, in total and, of attacks that stay near the image, about each."""
    assert result.queries.total == result.forwards == asked.rows
    each = np.array([verdict.forwards for verdict in result.verdicts])
    assert each.sum() == asked.rows and each.max() <= wall
    assert not near or each.tolist() == asked.each.tolist()
    assert result.queries.answered == asked.rows - asked.failed
    assert result.queries.mean == asked.rows / len(each)
    assert result.queries.median == float(np.median(each))
    assert result.queries.stopped == int((each >= wall).sum())


@settings(max_examples=12)
@given(
    seed=st.integers(0, 99),
    wall=st.integers(1, 60),
    size=st.integers(1, 20),
    access=st.sampled_from(["scores", "decisions"]),
    restarts=st.integers(1, 3),
)
def test_reported_is_sent_and_within_the_wall_whatever_the_batch_size(seed, wall, size, access, restarts):
    chosen = {
        "scores": {"attack": "square", "parameters": {"square": {"queries": 15, "restarts": restarts}}},
        "decisions": {"attack": ["boundary", "cascade"]},
    }[access]
    found = []
    for batch_size in (size, 7):
        asked = Counted(seed)
        box = BlackBox(asked, access=access, max_queries=wall)
        result = evaluate(box, asked.data, Threat("l2", 0.3), batch_size=batch_size, progress=False, **chosen)
        checked(asked, result, wall, near=access == "scores")
        assert result.stages[0].forwards <= result.forwards - len(asked.x)
        found.append([(v.status, v.forwards, v.distance) for v in result.verdicts])
    assert found[0] == found[1]


@settings(max_examples=6)
@given(total=st.integers(6, 100), wall=st.one_of(st.none(), st.integers(1, 30)))
def test_a_total_is_shared_equally(total, wall):
    asked = Counted()
    box = BlackBox(asked, max_queries=wall, max_total_queries=total)
    result = evaluate(box, asked.data, Threat("linf", 0.01), progress=False)
    share = total // 6 if wall is None else min(total // 6, wall)
    checked(asked, result, share)
    assert asked.rows <= total
    with pytest.raises(ConfigError):
        Account(range(6), max_total_queries=5)


def test_what_is_left_is_used_up():
    asked = Counted()
    result = evaluate(BlackBox(asked, max_queries=20), asked.data, Threat("linf", 1e-4), progress=False)
    assert result.robust_correct == 6 and result.trusted
    box = BlackBox(Counted(), access="decisions", max_queries=20)
    result = evaluate(box, asked.data, Threat("linf", 1e-4), progress=False)
    assert [verdict.forwards for verdict in result.verdicts] == [20] * 6 and result.queries.stopped == 6


def test_perturb_counts_all_queries():
    asked = Counted()
    found = perturb(BlackBox(asked, max_queries=30), *asked.data, Threat("linf", 0.1), "square")
    assert found.forwards.tolist() == asked.each.tolist() and asked.each.max() <= 30
    assert [note.code for note in found.notes] == ["black-box"]
    assert found.success.any()


def test_each_attempt_counts_and_answers_are_told_apart():
    asked = Counted(fails=(1, 3, 4))
    result = evaluate(BlackBox(asked, max_queries=25), asked.data, Threat("linf", 0.05), progress=False)
    checked(asked, result, 25)
    assert asked.failed > 0
    asked = Counted(fails=range(1, 9))
    with pytest.raises(ModelError):
        evaluate(BlackBox(asked, retries=2), asked.data, Threat("linf", 0.05), progress=False)
    assert len(asked.batches) == 3
    asked = Counted(fails=range(1, 9))
    with pytest.raises(ModelError):
        evaluate(BlackBox(asked, retries=0), asked.data, Threat("linf", 0.05), progress=False)
    assert len(asked.batches) == 1


@pytest.mark.parametrize("dies", [3, 20, 60])
def test_a_killed_run_and_its_resume_keep_the_limit_together(dies, tmp_path):
    asked = Counted(dies=dies)
    box = BlackBox(asked, access="decisions", max_queries=30)

    def go():
        with RunFolder.open("attack", "toy", Evaluation(model="toy"), tmp_path / "run") as run:
            return evaluate(box, asked.data, Threat("linf", 1e-3), run=run, batch_size=4, progress=False)

    with pytest.raises(KeyboardInterrupt):
        go()
    lost, asked.dies = asked.batches[-1], None
    result = go()
    assert result.queries.total == asked.rows == 6 * 30
    assert [verdict.forwards for verdict in result.verdicts] == [30] * 6
    assert result.queries.answered == asked.rows - lost
    first = (tmp_path / "run" / "queries.jsonl").read_text().splitlines()[0]
    assert json.loads(files.unsealed_line(first)) == {"schema": "advkit/queries", "version": 1}


def test_gradients_layers_and_scores_are_refused_before_any_query(monkeypatch):
    asked = Counted()
    box = BlackBox(asked, classes=3)
    with monkeypatch.context() as two, pytest.raises(ConfigError):
        two.setattr(distributed, "world", lambda: 2)
        _refuse_inner(Evaluation(model="box"))
    for how in ({"attack": "pgd"}, {"certify": True}, {"bpda": ["x"]}, {"attack": "autoattack"}):
        with pytest.raises(ConfigError):
            evaluate(box, asked.data, Threat("linf", 0.1), progress=False, **how)
    with pytest.raises(ConfigError) as refused:
        perturb(box, *asked.data, Threat("linf", 0.1), "pgd")
    assert refused.value.code == "black-box-access"
    with pytest.raises(ConfigError):
        perturb(BlackBox(asked, access="decisions", classes=3), *asked.data, Threat("linf", 0.1), "square")
    model = load_model(box, shape=SHAPE)
    with pytest.raises(ModelError):
        model(asked.data[0].requires_grad_())
    assert asked.rows == 0


def test_a_surrogate_gives_gradients_and_the_black_box_confirms():
    asked = Counted()
    copy = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3, bias=False))
    copy[1].weight.data = torch.from_numpy(asked.weights.T.copy()).float()
    result = evaluate(
        BlackBox(asked, max_queries=5), asked.data, Threat("linf", 0.3), "pgd", surrogate=copy, progress=False
    )
    assert result.robust_correct == 0 and result.queries.total == asked.rows == 12


@pytest.mark.parametrize(
    ("answer", "access"),
    [
        (lambda x: np.full((len(x), 3), np.nan), "scores"),
        (lambda x: np.zeros((len(x), 2)), "scores"),
        (lambda x: np.zeros((len(x) + 1, 3)), "scores"),
        (lambda x: np.zeros(len(x)), "scores"),
        (lambda x: np.full(len(x), 3), "decisions"),
        (lambda x: np.full(len(x), -1), "decisions"),
        (lambda x: np.full(len(x), 0.4), "decisions"),
        (lambda x: ["a"] * len(x), "decisions"),
        (lambda x: [[1, 2, 3]] * (len(x) - 1) + [[1]], "scores"),
        (lambda x: 1 / 0, "scores"),
    ],
)
def test_other_answers_are_refused(answer, access):
    asked = Counted()
    with pytest.raises(UserError):
        evaluate(BlackBox(answer, classes=3, access=access), asked.data, Threat("linf", 0.1), progress=False)
    with pytest.raises(ConfigError):
        BlackBox(answer, access="all")
    with pytest.raises(ConfigError):
        BlackBox(answer, max_queries=0)
    with pytest.raises(ConfigError):
        BlackBox(answer, outputs="classes")


def test_scores_that_rounding_spoils_are_doubted_without_a_query():
    asked = Counted()
    limits = {"classes": 3, "max_queries": 30}
    rounded = BlackBox(lambda x: asked(x).argmax(1)[:, None] == np.arange(3), **limits)
    for box, doubted in ((rounded, True), (BlackBox(asked, access="decisions", **limits), False)):
        asked.batches.clear()
        result = evaluate(box, asked.data, Threat("linf", 0.01), progress=False)
        assert result.queries.total == asked.rows and result.robust_correct
        assert ("outputs" in {check.name for check in result.checks if check.verdict == "doubt"}) == doubted


def test_classes_and_largest_scores_are_the_same_decisions():
    asked, named = Counted(), Counted()
    one = evaluate(
        BlackBox(asked, access="decisions", max_queries=40), asked.data, Threat("l2", 0.5), progress=False
    )
    box = BlackBox(lambda x: named(x).argmax(1), classes=3, access="decisions", max_queries=40)
    two = evaluate(box, asked.data, Threat("l2", 0.5), progress=False)
    assert one.verdicts == two.verdicts and one.robust_correct < 6


def test_estimators_on_digits_are_asked_in_their_own_units():
    linear = pytest.importorskip("sklearn.linear_model")
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    fitted = linear.LogisticRegression(max_iter=2000).fit(digits.data[:500], digits.target[:500])

    class Estimator(linear.LogisticRegression):
        rows = 0

        def predict_proba(self, x):
            Estimator.rows += len(x)
            assert x.shape[1:] == (64,)
            return super().predict_proba(x)

    estimator = Estimator()
    estimator.__dict__.update(fitted.__dict__)
    x, y = (
        torch.from_numpy(digits.images[500:510, None] / 16).float(),
        torch.from_numpy(digits.target[500:510]),
    )
    for attack, threat in (("square", Threat("linf", 0.1)), ("hop-skip-jump", Threat("l2", 1.5))):
        Estimator.rows = 0
        model = load_model(estimator, shape=(1, 8, 8), pixel_range=(0, 16), max_queries=150)
        result = evaluate(model, (x, y), threat, attack, progress=False)
        assert result.queries.total == Estimator.rows and max(v.forwards for v in result.verdicts) <= 150
        assert result.clean_correct == (fitted.predict(digits.data[500:510]) == digits.target[500:510]).sum()
        assert result.robust_correct < result.clean_correct
    with pytest.raises(UserError):
        evaluate(estimator, (x[..., :7], y), Threat("linf", 0.1), progress=False)


def test_a_module_is_asked_without_its_gradient():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    x = Counted().data[0]
    model = load_model(BlackBox(module, shape=SHAPE, classes=3))
    assert torch.equal(model(x), module(x).detach())
    module.predict_proba = None  # a module with such a method is a module
    assert load_model(module, shape=SHAPE)(x).requires_grad


def test_the_command_takes_a_function(tmp_path, monkeypatch, capsys):
    (tmp_path / "asked_service.py").write_text(
        "import numpy as np\nrows = 0\n"
        "def predict(x):\n"
        "    global rows\n    rows += len(x)\n"
        "    return np.stack([x[:, 0, 0, k] for k in range(3)], 1)\n"
    )
    x = np.random.default_rng(0).uniform(0.2, 0.8, (5, *SHAPE)).astype(np.float32)
    np.savez(tmp_path / "toy.npz", x=x, y=x[:, 0, 0, :3].argmax(1))
    monkeypatch.chdir(tmp_path)
    from click.testing import CliRunner

    from advkit.cli.app import app

    words = "attack --model asked_service:predict --access scores --max-queries 15 --norm linf --eps 0.1"
    ended = CliRunner().invoke(
        app, [*words.split(), "--data", "npz:toy.npz", "--out", "run", "--split", "all"]
    )
    assert ended.exit_code == 0, ended.output
    import asked_service

    kept = json.loads((tmp_path / "run" / "result.json").read_text())
    assert kept["queries"]["total"] == asked_service.rows <= 75
    assert advkit.BlackBox is BlackBox
