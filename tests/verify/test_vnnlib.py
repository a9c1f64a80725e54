"""Properties of VNN-LIB are read as they are meant, and decided as they are."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from advkit.core import rng
from advkit.core.errors import DataError
from advkit.models.load import wrap
from advkit.verify.certification.branch import Branching
from advkit.verify.certification.search import Decision
from advkit.verify.vnnlib import decide, load_property

NAMES = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"
BOX = "(assert (>= X_0 0.25))(assert (<= X_0 1.0))(assert (<= -1 X_1))(assert (>= 1e0 X_1)) ; the inputs\n"


def written(tmp_path, *asserted, box=BOX, names=NAMES):
    path = tmp_path / "one.vnnlib"
    path.write_text(names + box + "".join(f"(assert {one})" for one in asserted), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("asserted", "rows"),
    [
        (["(>= Y_0 3)"], [[[1, 0, -3]]]),
        (["(<= Y_0 Y_1)"], [[[-1, 1, 0]]]),
        (["(<= Y_0 Y_1)", "(<= 2 Y_1)", "(<= 1 (+ 1 0))"], [[[-1, 1, 0], [0, 1, -2]]]),
        (
            ["(or (and (>= Y_0 1) (<= Y_1 0)) (>= (+ Y_0 (* 2 Y_1) 5) 1))"],
            [[[1, 0, -1], [0, -1, 0]], [[1, 2, 4]]],
        ),
        (["(<= (- Y_0 Y_1 1) (- 3))"], [[[-1, 1, -2]]]),
        (
            ["(or (>= Y_0 1) (>= Y_1 1))", "(>= (* Y_0 3) 2)"],
            [[[1, 0, -1], [3, 0, -2]], [[0, 1, -1], [3, 0, -2]]],
        ),
    ],
)
def test_constraints_are_read(tmp_path, asserted, rows):
    (region,) = load_property(written(tmp_path, *asserted))
    assert (region.low.tolist(), region.high.tolist()) == ([0.25, -1], [1, 1])
    found = [torch.cat([factors, ends[:, None]], 1).tolist() for factors, ends in region.alternatives]
    assert found == rows


def test_boxes_of_alternatives_are_apart(tmp_path):
    parts = [
        "(and (<= X_0 0.5) (>= Y_0 1))",
        "(and (>= X_0 (* 0.5 1)) (<= X_0 0.75) (>= Y_1 1))",
        "(>= Y_0 2)",
    ]
    parts += ["(and (>= X_0 2) (>= Y_0 1))"]  # an empty one
    regions = load_property(written(tmp_path, f"(or {' '.join(parts)})"))
    assert [(r.low.tolist(), r.high.tolist(), len(r.alternatives)) for r in regions] == [
        ([0.25, -1], [0.5, 1], 1),
        ([0.5, -1], [0.75, 1], 1),
        ([0.25, -1], [1, 1], 1),
    ]


@pytest.mark.parametrize(
    "asserted",
    [
        ["(>= Y_0 X_0)"],
        ["(<= (+ X_0 X_1) 1)", "(>= Y_0 1)"],
        ["(>= Y_2 1)"],
        ["(>= (* Y_0 Y_1) 1)"],
        ["(= Y_0 1)"],
        ["(>= Y_0 one)"],
        ["(>= Y_0 nan)"],
        ["(<= Y_0 inf)"],
        [""],
        ["(<= X_0 0.5)"],
        ["(>= Y_0 1"],
        ["(>= Y_0)"],
        ["(" * 200 + ")" * 200],
        ["(or " + "(>= Y_0 1)" * 101 + ")"] * 2,
    ],
)
def test_what_is_no_property_is_refused(tmp_path, asserted):
    with pytest.raises(DataError):
        load_property(written(tmp_path, *asserted))


def test_files_without_bounds_or_variables_are_refused(tmp_path):
    for more in (
        {"box": "(assert (>= X_0 0))"},
        {"names": "(declare-const X_0 Real)"},
        {"box": BOX + "(exit)"},
    ):
        with pytest.raises(DataError):
            load_property(written(tmp_path, "(>= Y_0 1)", **more))
    with pytest.raises(DataError):
        load_property(tmp_path / "none.vnnlib")


@pytest.mark.parametrize(("asserted", "status"), [("(<= 0 Y_0)", "violated"), ("(< 0 Y_0)", "open")])
def test_a_strict_constraint_leaves_its_boundary_out(tmp_path, asserted, status):
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU())
    network[1].weight.data = torch.tensor([[-1.0, 0], [0, 1]])  # the first output is 0 on the box
    regions = load_property(written(tmp_path, asserted))
    assert decide(wrap(network, shape=(1, 1, 2)).eval(), regions, timeout=5).status == status


def test_what_contradicts_itself_describes_nothing(tmp_path):
    assert load_property(written(tmp_path, "(<= 1 0)", "(>= Y_0 -5)")) == ()
    assert load_property(written(tmp_path, "(< 1 1)", "(>= Y_0 -5)")) == ()


def drawn():
    with rng.scope("cpu", 4, "property"):
        layers = [nn.Linear(2, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 2)]
    for layer in layers[::2]:
        layer.weight.data.mul_(3)
    return wrap(nn.Sequential(nn.Flatten(), *layers), shape=(1, 1, 2)).eval()


def grid(count=301):
    return torch.cartesian_prod(torch.linspace(0.25, 1, count), torch.linspace(-1, 1, count))


@pytest.mark.parametrize("both", [False, True])
def test_answers_are_true(tmp_path, both):
    """Around the largest value that occurs: of one function, or of the lesser of two."""
    model = drawn()
    with torch.no_grad():
        outputs = model.network(grid()[:, None, None])
    value = torch.minimum(outputs[:, 0], 1 - outputs[:, 1]) if both else outputs[:, 0]
    for gap, status in ((-0.05, "violated"), (0.05, "holds")):
        end = float(value.max()) + gap
        least = f"(and (>= Y_0 {end}) (<= Y_1 {1 - end}))" if both else f"(>= Y_0 {end})"
        regions = load_property(written(tmp_path, f"(or {least} (>= Y_1 1000))"))
        answer = decide(model, regions, timeout=60)
        assert answer.status == status
        assert answer.input is not None or 0 < answer.margin < 0.05
        if answer.input is not None:
            with torch.no_grad():
                found = model.network(answer.input.view(1, 1, 1, 2))[0]
            assert (torch.minimum(found[0], 1 - found[1]) if both else found[0]) >= end - 1e-6
            assert ((regions[0].low <= answer.input) & (answer.input <= regions[0].high)).all()


def test_one_violated_region_is_enough_and_few_problems_leave_it_open(tmp_path):
    model = drawn()
    with torch.no_grad():
        largest = float(model.network(grid()[:, None, None])[:, 0].max())
    far, near = f"(and (<= X_0 0.5) (>= Y_0 {largest + 100}))", f"(and (<= X_0 1) (>= Y_0 {largest - 0.1}))"
    assert (
        decide(model, load_property(written(tmp_path, f"(or {far} {near})")), timeout=60).status == "violated"
    )
    holds = load_property(written(tmp_path, f"(>= Y_0 {largest + 0.05})"))
    answers = [decide(model, holds, timeout=60, subproblems=limit) for limit in (1, None)]
    assert [one.status for one in answers] == ["open", "holds"] and answers[0].margin <= 0 < answers[1].margin
    with pytest.raises(DataError):
        decide(wrap(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), shape=(1, 1, 3)).eval(), holds, timeout=1)


def test_an_open_property_says_what_no_time_decides(tmp_path):
    """Boxes of few inputs are halved, so that more time does decide."""
    for count, gap in ((2, False), (40, True)):
        with rng.scope("cpu", 4, "property"):
            layers = [nn.Linear(count, 9), nn.Tanh(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 2)]
            points = 2 * torch.rand(4000, 1, 1, count) - 1
        for layer in layers[::2]:
            layer.weight.data.mul_(3)
        model = wrap(nn.Sequential(nn.Flatten(), *layers), shape=(1, 1, count)).eval()
        names = "".join(f"(declare-const X_{k} Real)" for k in range(count)) + NAMES[-48:]
        box = "".join(f"(assert (>= X_{k} -1))(assert (<= X_{k} 1))" for k in range(count))
        with torch.no_grad():
            seen = float(model.network(points)[:, 0].max())
        regions = load_property(written(tmp_path, f"(>= Y_0 {seen + 0.05 + 4 * gap})", box=box, names=names))
        answer = decide(model, regions, timeout=60, subproblems=1)
        assert answer.status == "open" and bool(answer.notes) == gap
    assert not decide(drawn(), load_property(written(tmp_path, "(>= Y_0 1000)")), timeout=60).notes


def test_what_branch_and_bound_leaves_open_is_attacked_again(tmp_path, monkeypatch):
    """Every input has maxima at both ends, the upper twice as high, and nearly all have to be there."""
    both, last = nn.Linear(36, 72), nn.Linear(72, 1)
    both.weight.data = torch.cat([2 * torch.eye(36), -torch.eye(36)])
    both.bias.data = torch.tensor([-1.0, 0.5]).repeat_interleave(36)
    last.weight.data, last.bias.data = torch.full((1, 72), 1 / 36), torch.tensor([-0.9])
    model = wrap(nn.Sequential(nn.Flatten(), both, nn.ReLU(), last), shape=(1, 6, 6)).eval()
    names = "".join(f"(declare-const X_{k} Real)" for k in range(36)) + "(declare-const Y_0 Real)"
    box = "".join(f"(assert (>= X_{k} 0))(assert (<= X_{k} 1))" for k in range(36))
    regions = load_property(written(tmp_path, "(>= Y_0 0)", box=box, names=names))
    decided = [Decision(0, -1.0, 0.0, None, 9, 1.0)]
    monkeypatch.setattr(Branching, "decide", lambda self, x, label: iter(decided))
    monkeypatch.setattr(Branching, "facts", {})
    answer = decide(model, regions, timeout=600, subproblems=300)
    assert answer.status == "violated" and (answer.input > 0.9).sum() > 28


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("shape", [(1, 64), (1, 64, 1), (1, 1, 1, 64)])
def test_the_inputs_of_a_file_need_no_shape_of_images(shape, typed, tmp_path):
    onnx, reader = pytest.importorskip("onnx"), pytest.importorskip("onnx.parser")
    head = f'<ir_version: 8, opset_import: ["": 13]> row (float[{",".join(map(str, shape))}] x)'
    ones = f"<float[64,2] w = {{{', '.join(['1'] * 128)}}}>"
    row = f"{head} => (float[1,2] y) {ones} {{ flat = Flatten<axis = 1>(x) y = MatMul(flat, w) }}"
    (tmp_path / "row.onnx").write_bytes(reader.parse_model(row).SerializeToString())
    names = "".join(f"(declare-const X_{k} Real)" for k in range(64)) + "(declare-const Y_0 Real)"
    names += "(declare-const Y_1 Real)"
    box = "".join(f"(assert (>= X_{k} 0))(assert (<= X_{k} 1))" for k in range(64))
    file = written(tmp_path, "(>= Y_0 64.5)", box=box, names=names)
    assert onnx and typed("certify", f"--model={tmp_path / 'row.onnx'}", f"--property={file}") == 0


@pytest.mark.usefixtures("here")
def test_the_command_says_so(typed, tmp_path):
    names = "".join(f"(declare-const X_{k} Real)" for k in range(64))
    names += "".join(f"(declare-const Y_{k} Real)" for k in range(10))
    box = "".join(f"(assert (>= X_{k} 0.4))(assert (<= X_{k} 0.5))" for k in range(64))
    for end, code, status in ((1000, 0, "holds"), (-1000, 1, "violated")):
        file = written(tmp_path, f"(>= Y_3 {end})", box=box, names=names)
        assert typed("certify", "--model=clf.pt", f"--property={file}", "--json=a.json") == code
        said = json.loads(Path("a.json").read_text(encoding="utf-8"))
        assert said["status"] == status and (said["input"] is None) == (code == 0)
    words = ["certify", "--model=clf.pt", "--dry-run", "--json=b.json"]
    assert (
        typed(*words, f"--property={file}") == 0 and typed("certify", "--model=clf.pt", "--property=no") == 2
    )
    assert json.loads(Path("b.json").read_text(encoding="utf-8"))["alternatives"] == 1
