"""Files that are decoded in advance are the same, are decoded once, and hide no fault."""

import pickle
import threading

import pytest
import torch

from advkit.attacks.engine.search import _Queue
from advkit.core.errors import DataError
from advkit.data import image_files
from advkit.data.load import load_data


@pytest.fixture
def decoded(monkeypatch):
    """The names of files in the order in which they are decoded."""
    names, real = [], image_files._pixels

    def noted(path, *how):
        names.append(path.name)
        return real(path, *how)

    monkeypatch.setattr(image_files, "_pixels", noted)
    return names


@pytest.fixture
def data(make_folder):
    return load_data(f"folder:{make_folder({'a': 9})}", memory=0)


def settle():
    for thread in threading.enumerate():
        if thread.name == "read ahead":
            assert thread.daemon  # so that no process waits for it at its end
            thread.join()


def test_expected_rows_are_decoded_once_and_the_same(data, decoded):
    whole = data.images[:]
    decoded.clear()
    data.expect([4, 2, 2, 7])
    settle()
    assert sorted(decoded) == ["002.png", "004.png", "007.png"]
    rows = torch.tensor([7, 1, 4, 4])
    assert torch.equal(data.images[rows], whole[rows])
    assert sorted(decoded) == ["001.png", "002.png", "004.png", "007.png"]
    data.expect([2, 5])  # the first is there already
    settle()
    assert torch.equal(data.images[:], whole)
    assert sorted(decoded) == sorted(f"{row:03d}.png" for row in [*range(9), 1, 4, 7])
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again.images[:], whole)


def test_what_is_no_longer_expected_is_given_up(data, decoded):
    for rows in ([1], [3], [3]):
        data.expect(rows)
        settle()
    assert decoded == ["001.png", "003.png"]
    data.batch(torch.tensor([1]))
    assert decoded == ["001.png", "003.png", "001.png"]


def test_while_a_piece_is_used_the_next_is_read(data, decoded):
    whole, seen = data.batch(torch.arange(9))[0], []
    decoded.clear()
    for index, images in data.batches(torch.arange(9).split(4)):
        settle()
        seen.append(len(decoded))
        assert torch.equal(images, whole[index])
    assert seen == [8, 9, 9] and len(set(decoded)) == 9


def test_a_fault_shows_where_the_file_is_read(data):
    (data.images.folder / "a" / "003.png").write_bytes(b"no image")
    data.expect([2, 3])
    settle()
    assert data.batch(torch.tensor([2]))[0].shape == (1, 3, 5, 6)
    with pytest.raises(DataError, match=r"003\.png"):
        data.batch(torch.tensor([3]))


def test_a_queue_keeps_its_order():
    queue = _Queue(iter([(0, index) for index in range(5)]))
    assert queue.following(2) == [(0, 0), (0, 1)] == queue.following(2)
    assert next(queue) == (0, 0)
    queue.put_back([(9, 1), (9, 2)])
    assert queue.following(4) == [(9, 1), (9, 2), (0, 1), (0, 2)]
    assert list(queue) == [(9, 1), (9, 2), (0, 1), (0, 2), (0, 3), (0, 4)]
    assert queue.following(3) == []
