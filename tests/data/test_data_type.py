from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advkit.core.errors import ConfigError, DataError
from advkit.data.data import Data
from advkit.data.load import load_data


def data_of(labels: list[int], classes: int = 3) -> Data:
    n = len(labels)
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 2, 2)
    return Data(
        "toy",
        "train",
        images.contiguous(),
        torch.tensor(labels),
        tuple("abcdefghij"[:classes]),
        torch.arange(n),
    )


def test_batch_is_float_in_the_unit_range() -> None:
    images, labels = data_of([0, 1, 2]).batch(torch.tensor([2, 0]))
    assert images.dtype == torch.float32 and images.shape == (2, 1, 2, 2)
    assert torch.equal(images[:, 0, 0, 0], torch.tensor([2 / 255, 0.0]))
    assert labels.tolist() == [2, 0]


def test_batch_leaves_the_images_alone() -> None:
    data = data_of([0, 1, 2])
    floats = replace(data, images=data.images[:].float() / 255)
    images, _ = floats.batch(torch.arange(3))
    images.zero_()
    assert torch.equal(floats.images[:], data.images[:].float() / 255)


@pytest.mark.parametrize(
    ("side", "most", "sizes"), [(2, 500, [40]), (2, 30, [30, 10]), (1024, 30, [16, 16, 8])]
)
def test_large_images_are_worked_on_in_smaller_parts(side: int, most: int, sizes: list[int]) -> None:
    data = data_of([0] * 40)
    large = replace(data, images=data.images[:, :, :1, :1].expand(40, 1, side, side))
    assert [len(part) for part in large.pieces(most)] == sizes
    assert torch.cat(large.pieces(most)).tolist() == list(range(40))


def test_take_keeps_ids_and_facts() -> None:
    taken = data_of([0, 1, 2, 0]).take(torch.tensor([3, 1])).take(torch.tensor([1]))
    assert taken.ids.tolist() == [1] and taken.labels.tolist() == [1]
    assert taken.shape == (1, 2, 2) and taken.classes == 3 and len(taken) == 1


def test_limit_takes_the_first() -> None:
    data = data_of([0, 1, 2])
    assert data.limit(None) is data.limit(3) is data.limit(99) is data
    assert data.limit(2).ids.tolist() == [0, 1] and data.limit(1).ids.tolist() == [0]
    for n in (0, -1):
        with pytest.raises(ConfigError):
            data.limit(n)


ROUND = [row % 4 for row in range(400)]
SHUFFLED = [sum(divmod(row * row, 7)) % 4 for row in range(400)]
BLOCKS = [row // 100 for row in range(400)]


@pytest.mark.parametrize("n", [1, 3, 4, 10, 200, 399])
@pytest.mark.parametrize(
    "labels",
    [
        BLOCKS,
        BLOCKS[::-1],
        [row // 10 % 4 for row in range(400)],
        [0] * 150 + SHUFFLED,
        sorted([0] * 300 + ROUND),
    ],
)
def test_rows_in_class_order_are_sampled(labels: list[int], n: int) -> None:
    data = data_of(labels, 4)
    chosen, counts = data.limit(n), torch.tensor(labels).bincount()
    assert chosen.fingerprint == data.limit(n).fingerprint and len(chosen) == n
    assert chosen.ids.tolist() == sorted(set(chosen.ids.tolist()))
    each = chosen.labels.bincount(minlength=4)
    assert int(each.max() - each.min()) <= 1 or bool((each == counts).any())  # a class may be exhausted
    assert [note.code for note in chosen.notes] == ["sample"] and str(n) in repr(chosen)
    first = data.limit(n, first=True)
    assert first.ids.tolist() == list(range(n)) and [note.code for note in first.notes] == ["first-rows"]


@pytest.mark.parametrize("labels", [ROUND, SHUFFLED, [0] * 40, [0], [0, 1, 2, 3]])
def test_other_rows_are_taken_from_the_front(labels: list[int]) -> None:
    for n in range(1, len(labels) + 1, 7):
        chosen = data_of(labels, 4).limit(n)
        assert chosen.ids.tolist() == list(range(n)) and not chosen.notes


def test_a_sample_of_fewer_images_than_classes_is_not_of_the_first_ones() -> None:
    chosen = data_of([row // 10 for row in range(100)], 10).limit(4).labels.tolist()
    assert len(set(chosen)) == 4 and chosen != [0, 1, 2, 3]


def test_registered_sets_keep_their_first_images() -> None:
    digits = load_data("digits", "train")
    in_order = digits.take(digits.labels.argsort())
    assert digits.shuffled and in_order.limit(100).ids.tolist() == in_order.ids[:100].tolist()
    own = replace(in_order, shuffled=False)
    assert own.limit(100).labels.bincount().tolist() == [10] * 10


def test_faults_are_told() -> None:
    data = data_of([0, 1, 2])
    for labels in ([0, 1], [0, 1, 3], [0, 1, -1]):
        with pytest.raises(DataError):
            replace(data, labels=torch.tensor(labels))
    with pytest.raises(DataError):
        data.take(torch.tensor([], dtype=torch.int64))


def test_only_8_bit_images_pass_for_such() -> None:
    data = data_of([0, 1, 2])
    floats = replace(data, images=data.images[:].float() / 255)
    data.refuse_fractions(), floats.refuse_fractions()
    with pytest.raises(DataError):
        replace(floats, images=floats.images[:] + 0.5 / 255).refuse_fractions()


def test_fingerprint_depends_on_pixels_labels_and_order() -> None:
    data = data_of([0, 1, 2])
    assert data.fingerprint == data_of([0, 1, 2]).fingerprint
    others = [data_of([0, 1, 1]), data.take(torch.tensor([1, 0, 2])), data.take(torch.tensor([0, 1]))]
    others += [
        replace(data, images=images) for images in (data.images[:] + 1, data.images[:].view(3, 1, 1, 4))
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert data.facts.n == 3 and data.facts.fingerprint == data.fingerprint


@pytest.mark.parametrize("piece", [1, 4, 9, 2**26])
def test_fingerprint_does_not_depend_on_the_piece(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advkit.data.data._PIECE", piece)
    whole = b"torch.uint8(3, 1, 2, 2)" + bytes([0] * 4 + [1] * 4 + [2] * 4)
    labels = b"".join(label.to_bytes(8, "little") for label in (0, 1, 2))
    assert data_of([0, 1, 2]).fingerprint == hashlib.sha256(whole + labels).hexdigest()


labels_of_all_classes = st.lists(st.integers(0, 2), max_size=40).map(lambda more: [0, 1, 2, *more])


@settings(max_examples=50)
@given(labels=labels_of_all_classes, seed=st.integers(0, 5), cut=st.data())
def test_balanced_is_nested_balanced_and_fixed(labels: list[int], seed: int, cut: st.DataObject) -> None:
    data = data_of(labels)
    n = cut.draw(st.integers(data.classes, len(data)))
    m = cut.draw(st.integers(n, len(data)))
    rows = data.balanced(n, seed)
    assert len(rows) == n == len(rows.unique())
    assert torch.equal(rows, rows.sort().values)
    assert torch.equal(rows, data.balanced(n, seed))
    assert set(rows.tolist()) <= set(data.balanced(m, seed).tolist())
    taken, there = (torch.bincount(each, minlength=3) for each in (data.labels[rows], data.labels))
    short = taken < taken.max() - 1  # only a class that is used up may fall behind
    assert torch.equal(taken[short], there[short])


def test_balanced_differs_by_seed_and_refuses_the_impossible() -> None:
    data = data_of([0, 1, 2] * 20)
    assert not torch.equal(data.balanced(9, 0), data.balanced(9, 1))
    assert data.labels[data.balanced(7)].bincount().tolist() == [3, 2, 2]
    assert len(data.balanced(3)) == 3 and len(data.balanced(60)) == 60
    for n in (2, 61):
        with pytest.raises(DataError):
            data.balanced(n)


@pytest.mark.parametrize(("fraction", "count"), [(0.2, 12), (0.22, 13), (0.0, 3)])
def test_holdout_divides_without_overlap(fraction: float, count: int) -> None:
    rest, held = data_of([0, 1, 2] * 20).holdout(fraction)
    assert len(held) == count and held.labels.bincount().sub(count / 3).abs().max() < 1
    assert sorted([*rest.ids.tolist(), *held.ids.tolist()]) == list(range(60))
