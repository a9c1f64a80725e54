"""One process alone, and several whose runtime is played by threads; PyTorch's own is in tests/evaluation."""

import pickle
import random
import subprocess
import sys
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advkit.core import distributed
from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError, LostError
from advkit.core.journal import Journal, Record
from advkit.core.runs import RunFolder


class Threads:
    """What of `torch.distributed` is used, between threads of one process; a thread that ends is missed."""

    def __init__(self, world):
        self.world, self.mine, self.news = world, threading.local(), threading.Condition()
        self.said, self.ended = [[] for _ in range(world)], set()

    def is_available(self):
        return True

    def is_initialized(self):
        return hasattr(self.mine, "rank")

    def get_rank(self):
        return self.mine.rank

    def get_world_size(self):
        return self.world

    def all_gather_object(self, answers, value):
        mine = self.said[self.mine.rank]
        with self.news:
            mine.append(pickle.dumps(value))
            self.news.notify_all()
            for other, said in enumerate(self.said):
                self.news.wait_for(
                    lambda other=other, said=said: len(said) >= len(mine) or other in self.ended
                )
                if len(said) < len(mine):
                    raise RuntimeError("connection closed by peer")
            answers[:] = [pickle.loads(said[len(mine) - 1]) for said in self.said]

    def all_reduce(self, tensor):
        answers = [None] * self.world
        self.all_gather_object(answers, tensor.clone())
        tensor.copy_(sum(answers))


def everywhere(world, work):
    """What ``work()`` returned or raised in each of so many processes."""
    runtime, ended = Threads(world), [None] * world

    def one(rank):
        runtime.mine.rank = rank
        try:
            ended[rank] = work()
        except Exception as fault:
            ended[rank] = fault
        with runtime.news:
            runtime.ended.add(rank)
            runtime.news.notify_all()

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.distributed", runtime)
        patch.setenv("LOCAL_RANK", "3")
        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return ended


def test_alone_nothing_happens(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (distributed.rank(), distributed.local_rank(), distributed.world()) == (0, 0, 1)
    assert distributed.gather("x") == ["x"] and distributed.share("x") == "x"
    with pytest.raises(ConfigError), distributed.together():
        raise ConfigError("told")
    tensor = torch.ones(2)
    distributed.average([tensor])
    assert tensor.tolist() == [1, 1] and not distributed.launched()
    distributed.join()
    distributed.wait()


@settings(max_examples=20)
@given(st.integers(2, 4), st.lists(st.sampled_from([(), (3,), (2, 2), (0,)]), max_size=3), st.integers(0, 99))
def test_all_learn_what_each_has(world, shapes, seed):
    def made(rank):
        generator = torch.Generator().manual_seed(seed + rank)
        return [torch.randint(-99, 99, shape, generator=generator).double() for shape in shapes]

    def work():
        rank = distributed.rank()
        tensors = [tensor.requires_grad_() for tensor in made(rank)]
        distributed.average(iter(tensors))
        with distributed.together():
            found = distributed.gather(("of", rank)), distributed.share(rank + 5), distributed.local_rank()
        distributed.wait()
        return distributed.world(), *found, [tensor.detach() for tensor in tensors]

    means = [sum(parts) / world for parts in zip(*map(made, range(world)), strict=True)]
    for size, gathered, shared, local, tensors in everywhere(world, work):
        assert (size, gathered, shared, local) == (world, [("of", rank) for rank in range(world)], 5, 3)
        for tensor, mean in zip(tensors, means, strict=True):
            assert tensor.shape == mean.shape
            torch.testing.assert_close(tensor, mean)


class Stubborn(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(("world", "who"), [(2, 0), (2, 1), (3, 0), (3, 1)])
@pytest.mark.parametrize("fault", [ConfigError("what; where"), Stubborn(1, 2), KeyError("k")])
@pytest.mark.parametrize("late", [False, True])
def test_a_fault_of_one_ends_all(world, who, fault, late):
    def work():
        with distributed.together():
            if late:
                distributed.gather("in good health")
            if distributed.rank() == who:
                raise fault
            if who != 1:
                distributed.gather("not reached")

    fault.__dict__.pop("reported", None)
    for rank, raised in enumerate(everywhere(world, work)):
        assert raised.reported
        if rank == who:
            assert raised is fault and not hasattr(raised, "__notes__")
        elif isinstance(fault, ConfigError):
            assert type(raised) is ConfigError and str(raised) == "what; where"
            assert not hasattr(raised, "__notes__")
        else:
            kept = isinstance(fault, KeyError)  # the other cannot be pickled, so it is told in words
            assert type(raised) is (KeyError if kept else RuntimeError)
            assert str(raised) == (str(fault) if kept else "Stubborn: 1 and 2")
            assert f"in process {who}:" in raised.__notes__[0] and "raise fault" in raised.__notes__[0]


@pytest.mark.parametrize("ask", [distributed.gather, lambda x: distributed.average([x])])
def test_one_that_has_ended_is_missed(ask):
    def work():
        if distributed.rank() == 0:
            return "ended"
        with distributed.together() if distributed.rank() == 1 else nullcontext():
            ask(torch.ones(1))
        return "not reached"

    first, *others = everywhere(3, work)
    assert first == "ended" and all(type(other) is LostError and other.reported for other in others)
    assert everywhere(2, lambda: distributed.rank() or distributed.wait()) == [None, 1]


@pytest.mark.parametrize(("world", "launched"), [(None, False), ("1", False), ("2", True), ("3", True)])
def test_what_torchrun_started_is_joined(monkeypatch, world, launched):
    did = []
    runtime = SimpleNamespace(init_process_group=lambda backend, **more: did.append(backend))
    monkeypatch.setattr(torch, "distributed", runtime)
    if world is not None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
        monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for gpus, backend in ((0, "gloo"), (1, "gloo"), (2, "cpu:gloo,cuda:nccl"), (3, "cpu:gloo,cuda:nccl")):
        did.clear()
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=gpus: count)
        distributed.join()
        assert distributed.launched() == launched
        assert did == ([backend] if launched else [])


def test_asking_imports_nothing_and_leaving_ends_at_once():
    code = (
        "import atexit, os, sys; from advkit.core import distributed\n"
        "assert distributed.world() == 1 and distributed.rank() == 0\n"
        "distributed.join(); assert 'torch' not in sys.modules\n"
        "atexit.register(print, 'the end')\n"
        "print('flushed'); sys.stderr.close(); distributed.leave(7)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (7, b"flushed\n")


def test_a_run_folder_is_one_for_all_and_the_first_writes(tmp_path):
    def work(command="train"):
        with RunFolder.open(command, "x", StrictModel(), tmp_path / "r") as run:
            run.metrics(distributed.rank(), loss=1.0)
            return run.path, run.resumed

    for resumed in (False, True):
        assert everywhere(3, work) == [(tmp_path / "r", resumed)] * 3
    assert (tmp_path / "r" / "metrics.jsonl").read_text() == '{"step": 0, "loss": 1.0}\n' * 2
    assert {type(fault) for fault in everywhere(3, lambda: work("attack"))} == {ConfigError}


class Found(StrictModel):
    id: int
    value: float
    stage: str = ""


@pytest.mark.parametrize("seed", range(12))
def test_a_record_is_all_that_was_added_by_however_many_processes(seed, tmp_path):
    """Over the lives of a run, of which the last is finished; against a dict."""
    dice, ids = random.Random(seed), [7, 3, 12, 5]
    stages = ("b", "a") if seed % 2 else ()
    places = [(stage, sample) for stage in stages or ("",) for sample in ids]
    found = [Found(id=sample, stage=stage, value=dice.random()) for stage, sample in places]
    known = {}
    left = dice.sample(found, len(found))
    for life in range(4):
        world, count = dice.randint(1, 3), dice.randint(1, 3) if life < 3 else len(left)
        now, left = left[:count], left[count:]

        def work(world=world, now=now, life=life):
            said = []
            with Record(tmp_path, "found", 1, Found, ids, stages) as record:
                said.append(dict(record.entries))
                for entry in now[distributed.rank() :: world]:
                    record.add(entry)
                if life % 2:
                    record.finish()
                    said.append(dict(record.entries))
            return said

        before = dict(known)
        known |= {(entry.stage, entry.id) if stages else entry.id: entry for entry in now}
        assert everywhere(world, work) == [[before, known] if life % 2 else [before]] * world
    assert [path.name for path in tmp_path.iterdir()] == ["found.jsonl"]
    lines = Journal(tmp_path / "found.jsonl", "advkit/found", 1).read()
    assert list(map(Found.model_validate_json, lines)) == found
    whole, keys = tmp_path / "whole", dice.sample(places if stages else ids, 3)
    own = found[0].model_copy(update={"value": 2.0})  # known already; and the last one is nowhere
    first, *_, last = places if stages else ids
    taken = {first: own} | {key: known[key] for key in keys if key not in (first, last)}
    for number, entry in enumerate([own, *found[:-1]], -1):
        folder = tmp_path / f"shard-{number % 2}" if number >= 0 else whole
        with Record(folder, "found", 1, Found, ids, stages) as record:
            record.add(entry)

    def take():
        parts = tmp_path / "shard-0", tmp_path / "shard-1"
        with Record(whole, "found", 1, Found, ids, stages, parts=parts) as record:
            record.take(keys)
            record.finish()
            return dict(record.entries)

    assert everywhere(world, take) == [taken] * world
    lines = Journal(whole / "found.jsonl", "advkit/found", 1).read()
    assert list(map(Found.model_validate_json, lines)) == [
        each for each in [own, *found[1:]] if each in taken.values()
    ]
    record = Record(None, "found", 1, Found, ids, stages)
    record.add(found[0])
    record.finish()
    assert list(record.entries.values()) == found[:1]
