"""Rotations and shifts: the grid, the random ones, and what is confirmed of them."""

import itertools
import json

import pytest
import torch
from torch import nn

from advkit.core.progress import Progress
from advkit.core.runs import RunFolder
from advkit.data.data import Data
from advkit.data.subjects import Subject
from advkit.evaluation.spatial import evaluate as evaluating
from advkit.evaluation.spatial.evaluate import evaluate_moves, moved_images
from advkit.evaluation.spatial.moves import Limits, grid_moves, random_moves
from advkit.evaluation.spatial.result import SpatialResult
from advkit.evaluation.spatial.search import first_success, move
from advkit.evaluation.spatial.settings import Spatial
from advkit.models.load import wrap

CONFIG = Spatial(model="toy", rotation=30, shift=0.8, rotations=5, shifts=3, random=4)


def judged(model, data, config):
    return evaluate_moves(Subject.of(model, data), config)


def test_the_grid_holds_every_combination_from_the_smallest_on():
    limits = Limits(30, 3)
    moves = grid_moves(limits, 31, 5)
    every = itertools.product(range(-30, 31, 2), *2 * [(-3.0, -1.5, 0.0, 1.5, 3.0)])
    assert [*map(pytest.approx, sorted(moves.tolist()))] == sorted(map(list, every))
    sizes = [max(abs(angle) / 30, abs(across) / 3, abs(down) / 3) for angle, across, down in moves.tolist()]
    assert limits.size(moves).tolist() == pytest.approx(sizes) == sorted(sizes)
    assert limits.contain(moves).all() and not limits.contain(torch.tensor([[30.0, 3.1, 0.0]])).any()
    near = torch.tensor([[30.0 * (1 + off), 0.0, 0.0] for off in (0.5e-6, 1.5e-6)])
    assert limits.contain(near).tolist() == [True, False]  # up to rounding
    assert grid_moves(Limits(0, 3), 31, 5).shape == (25, 3)
    assert grid_moves(limits, 1, 1).tolist() == [[0.0, 0.0, 0.0]]
    assert sorted(grid_moves(limits, 2, 1).tolist()) == [[-30.0, 0.0, 0.0], [30.0, 0.0, 0.0]]


def test_random_moves_are_within_the_limits_and_belong_to_their_sample():
    limits = Limits(30, 3)
    moves = random_moves(limits, torch.arange(500), 10, seed=1)
    assert limits.contain(moves).all() and limits.size(moves).max() > 0.99
    assert moves.mean((0, 1)).abs().div(torch.tensor([30.0, 3, 3])).max() < 0.03
    assert torch.equal(random_moves(limits, torch.tensor([77]), 10, seed=1)[0], moves[77])
    assert not torch.equal(random_moves(limits, torch.arange(500), 10, seed=2), moves)


def test_the_first_move_that_breaks_is_the_one_that_trying_all_finds(upper):
    model, data = upper
    moves = grid_moves(Limits(40, 2), 5, 3).expand(len(data), -1, -1)
    with torch.no_grad():
        said = torch.stack([model(move(data.images, each, "zeros")).argmax(1) for each in moves.unbind(1)], 1)
    wrong = said != data.labels[:, None]
    expected = torch.where(wrong.any(1), wrong.int().argmax(1), -1)
    assert len(set(expected.tolist())) > 5
    for batch_size in (1, 16, 300):
        found = first_success(model, data.images, data.labels, moves, "zeros", batch_size)
        assert torch.equal(found.first, expected)
    tried = torch.where(expected < 0, moves.shape[1], expected + 1).sum()
    assert found.tried.sum() >= tried
    assert first_success(model, data.images, data.labels, moves, "zeros", 1).tried.sum() == tried


@pytest.mark.parametrize("confirmed", [True, False])
def test_every_verdict_is_that_of_trying_all_moves(upper, monkeypatch, confirmed):
    model, data = upper
    config = CONFIG.model_copy(update={"rotations": 4, "shifts": 2, "batch_size": 1})  # none stays in place
    if not confirmed:
        monkeypatch.setattr(evaluating, "is_wrong", lambda model, x, label: torch.zeros(len(x)).bool())
    result = judged(model, data, config)
    limits = Limits(30, 0.8)
    lists = {
        "random": random_moves(limits, data.ids, 4, 0),
        "grid": grid_moves(limits, 4, 2).expand(40, -1, -1),
    }
    forwards, hits = 40, 0
    for by, moves in lists.items():
        with torch.no_grad():
            said = [model(move(data.images, each, "zeros")).argmax(1) for each in moves.unbind(1)]
        wrong = torch.stack(said, 1) != data.labels[:, None]
        first = torch.where(wrong.any(1), wrong.int().argmax(1), -1).tolist()
        assert 0 in first and max(first) > 2
        for verdict, index, to in zip(result.verdicts, first, moves.tolist(), strict=True):
            found = getattr(verdict, by)
            if verdict.id in (3, 7):
                assert verdict.status == "misclassified" and found is None
                continue
            forwards += index + 2 if index >= 0 else len(to)
            hits += index >= 0
            assert (found is not None) == (confirmed and index >= 0)
            if found is not None:
                assert [found.angle, found.across, found.down] == pytest.approx(to[index])
                assert found.size == pytest.approx(float(limits.size(torch.tensor(to[index]))))
                assert verdict.status == "broken"
    assert (result.forwards, result.unconfirmed) == (forwards, 0 if confirmed else hits)
    right = [verdict for verdict in result.verdicts if verdict.status != "misclassified"]
    assert result.random_correct == sum(verdict.random is None for verdict in right)
    assert result.grid_correct == sum(verdict.grid is None for verdict in right)


@pytest.mark.parametrize(
    ("shape", "shift"), [((1, 24, 36), 2), ((3, 36, 24), 2), ((1, 8, 8), 1), ((1, 4, 4), 0)]
)
def test_the_usual_shift_is_a_tenth_of_the_smaller_side(shape, shift):
    data = Data("toy", "test", torch.zeros(1, *shape), torch.zeros(1).long(), ("a", "b"), torch.arange(1))
    assert evaluating.limits(Spatial(model="toy", rotation=5), data) == Limits(5, shift)


def test_the_figures_agree_with_the_images_that_are_saved(upper):
    model, data = upper
    result = evaluate_moves(Subject.of(model, data), CONFIG)
    moved = moved_images(data, SpatialResult.model_validate(json.loads(json.dumps(result.as_values()))))
    with torch.no_grad():
        right = model(moved).argmax(1) == data.labels
    assert right.sum() == result.robust_correct and result.n == 40 and result.clean_correct == 38
    assert 0 < result.robust_correct <= result.grid_correct < result.random_correct < result.clean_correct
    assert torch.equal(moved, moved_images(data, result)) and result.unconfirmed == 0
    for verdict, x0, x in zip(result.verdicts, data.images, moved, strict=True):
        assert (verdict.move is None) == torch.equal(x0, x)
    for size in (-1.0, 0.5, 1.0):
        fallen = sum(verdict.grid is not None and verdict.grid.size <= size for verdict in result.verdicts)
        assert result.left_at(size) == (38 - fallen) / 40
    assert result.left_at(1) == result.grid_correct / 40
    assert result.interval.low < result.robust_correct / 40 < result.interval.high


def test_batch_size_and_subset_change_nothing(upper):
    model, data = upper
    whole = evaluate_moves(Subject.of(model, data), CONFIG)
    assert judged(model, data, CONFIG.model_copy(update={"batch_size": 7})).verdicts == whole.verdicts
    part = evaluate_moves(Subject.of(model, data, 22), CONFIG)
    assert (whole.status, part.status) == ("complete", "partial")
    assert part.verdicts == whole.verdicts[:22]
    few = judged(model, data.take(torch.tensor([5, 21])), CONFIG)
    assert few.verdicts == (whole.verdicts[5], whole.verdicts[21])


def test_a_model_that_sees_only_the_mean_is_not_broken_by_turning_the_middle(upper):
    """A dot in the middle stays where it is, whatever the angle."""
    _, data = upper
    x = torch.zeros(4, 1, 8, 8)
    x[:, :, 3:5, 3:5] = 1.0

    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.mean((1, 2, 3)), torch.full((len(x),), 0.06)], 1)

    model = wrap(Mean(), shape=(1, 8, 8), classes=2).eval()
    labels = torch.zeros(4, dtype=torch.int64)
    dots = type(data)("dots", "test", x, labels, ("a", "b"), torch.arange(4))
    turned = judged(model, dots, CONFIG.model_copy(update={"rotation": 0.0, "shift": 2.0}))
    assert turned.robust_correct == 4  # shifts by up to 2 pixels keep the dot inside
    far = judged(model, dots, CONFIG.model_copy(update={"rotation": 0.0, "shift": 4.0, "shifts": 9}))
    assert far.robust_correct == 0
    assert all(v.grid is not None and max(abs(v.grid.across), abs(v.grid.down)) == 4 for v in far.verdicts)


def test_goes_on_after_an_interruption(upper, tmp_path, monkeypatch, stopping):
    model, data = upper
    config = CONFIG.model_copy(update={"batch_size": 9})

    def run(progress):
        with RunFolder.open("spatial", "toy", config, tmp_path / "run") as folder:
            return evaluate_moves(Subject.of(model, data), config, run=folder, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        run(stopping)
    lines = (tmp_path / "run/moved.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 18 and '"version": 1' in lines[0]
    (tmp_path / "run/moved.jsonl").write_text("".join([*lines[:13], lines[13][:20]]))  # and the power went
    entries, begun = evaluating._entries, []
    monkeypatch.setattr(evaluating, "_entries", lambda *args: begun.append(int(args[2][0])) or entries(*args))
    resumed = run(Progress())
    assert begun == [9, 18, 27, 36]
    assert (tmp_path / "run/moved.jsonl").read_text().startswith("".join(lines))
    whole = evaluate_moves(Subject.of(model, data), config)
    assert resumed.verdicts == whole.verdicts and resumed.forwards == whole.forwards


def test_reads_back(upper, tmp_path):
    result = evaluate_moves(Subject.of(*upper), CONFIG)
    (tmp_path / "result.json").write_text(json.dumps(result.as_values()))
    assert SpatialResult.load(tmp_path) == result
