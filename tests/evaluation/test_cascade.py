"""Cascade and ledger against plain lists: whatever is attacked, however many share it, wherever they die."""

import json
import pickle
import random
import re
import threading
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from fractions import Fraction
from math import comb
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from advkit.attacks.attack import ATTACKS
from advkit.attacks.engine.outcome import Found
from advkit.attacks.ensemble import Stage
from advkit.attacks.ensembles.cascade import FEW, MANY
from advkit.core import distributed, files, rng
from advkit.core.errors import OutputError
from advkit.core.journal import Journal
from advkit.core.progress import Progress, Share, Task
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.evaluation.cascade import Cascade, most_common
from advkit.evaluation.ledger import Entry, ImageWriter, Ledger
from advkit.evaluation.result import COMPLETE
from advkit.evaluation.settings import Evaluation

ACCESS = {name: ATTACKS.get(name).access for name in ("noise", "square", "pgd", "fgsm")}


class Processes:
    """Threads in the place of processes: one that dies breaks the exchange of all."""

    def __init__(self, count):
        self.count, self.here, self.values = count, threading.local(), [b""] * count
        self.barrier = threading.Barrier(count)

    def gather(self, value):
        self.values[self.here.rank] = pickle.dumps(value)
        self.barrier.wait(60)
        told = [pickle.loads(value) for value in self.values]
        self.barrier.wait(60)
        return told

    def run(self, work):
        """What each returned or raised."""
        ends = [None] * self.count

        def one(rank):
            self.here.rank = rank
            try:
                ends[rank] = work(rank)
            except BaseException as fault:
                ends[rank] = fault
                self.barrier.abort()

        fakes = {"rank": lambda: self.here.rank, "world": lambda: self.count, "gather": self.gather}
        fakes["share"] = lambda value: self.gather(value)[0]
        with mock.patch.multiple(distributed, **fakes):
            threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return ends


class Told(Progress, Task):
    """Keeps what it is told."""

    def __init__(self):
        self.said, self.expected, self.done, self.left = [], 0, 0, None

    def task(self, name, total, *, done=0, unit="step"):
        return self

    def say(self, message):
        self.said.append([int(number) for number in re.findall(r"\d+", message)])

    def extend(self, n):
        self.expected += n

    def advance(self, n=1, **facts):
        self.done += n
        self.left = facts.get("accuracy left", self.left)


def drawn(seed):
    """Images, stages, and what each stage would find on each image."""
    dice = random.Random(seed)
    n = dice.choice([1, 3, 8, 20, 60])
    ids = dice.sample(range(200), n)
    clean = torch.tensor([[dice.random() for _ in range(3)] for _ in range(n)])
    labels = [k if dice.random() < 0.8 else (k + 1) % 3 for k in clean.argmax(1).tolist()]
    correct = [label == k for label, k in zip(labels, clean.argmax(1).tolist(), strict=True)]
    proved = [right and dice.random() < 0.2 for right in correct] if dice.random() < 0.4 else None
    stages, rare = [], dice.choice([0.05, 0.3])
    for number in range(dice.randint(1, 5)):
        more = {"precision": dice.choice([None, "float32"]), "round": dice.choice([1, 2, 5, 32])}
        more["after"] = dice.choice([None, *(stage.name for stage in stages)])
        more["beyond"] = dice.choice([0, 0, 3, 13])
        more["tolerance"] = dice.choice([0, 0, 1 / 64, 1 / 16, 1 / 4])
        more["rare"] = dice.choice([1 / 4, 1 / 4, 1 / 8])
        stages.append(Stage(f"stage-{'abcde'[number]}", dice.choice(list(ACCESS)), **more))
    table = {
        (stage.name, row): {
            "broken": dice.random() < rare, "iteration": dice.randint(0, 9), "variant": dice.randint(0, 3),
            "distance": dice.randint(0, 99) / 64, "refuted": dice.choice([0, 0, 1, 2]), "undefined": False,
            "margin": dice.choice([None, *(k / 8 for k in range(-6, 6))]),
            "forwards": dice.randint(0, 20), "backwards": dice.randint(0, 20),
        }
        for stage in stages
        for row in range(n)
    }  # fmt: skip
    x = rng.uniform(torch.tensor(ids), (1, 1, 2))
    data = Data("toy", "test", x, torch.tensor(labels), ("a", "b", "c"), torch.tensor(ids))
    return SimpleNamespace(
        dice=dice, data=data, clean=clean, ids=ids, labels=labels, correct=correct, proved=proved,
        stages=stages, table=table, n=n, budget=dice.choice([None, None, 0, 5, 40]),
        surrogate=dice.choice([None, nn.Identity()]),
    )  # fmt: skip


def image(case, name, row):
    return torch.full((1, 1, 2), row + 0.5 + 0.125 * [stage.name for stage in case.stages].index(name))


class Killed(BaseException):
    pass


class Scripted(Cascade):
    """Its searches find what the table says, and end the process before or after the ``fate``-th verdict."""

    def __init__(self, case, ledger, fate=None):
        super().__init__(
            nn.Linear(1, 1), nn.Linear(1, 1), case.data, case.clean, Threat("linf", 0.1), ledger,
            Evaluation.model_construct(seed=0, precision="bfloat16", budget=case.budget), votes=1,
            progress=Told(), surrogate=case.surrogate,
            proved=None if case.proved is None else torch.tensor(case.proved),
        )  # fmt: skip
        self.case, self.fate, self.asked, self.doors = case, fate, Counter(), {}

    def oracle(self, threat, access, precision, **more):
        return (access, precision, more["on_surrogate"])

    def searching(self, name, attack, oracle):
        self.doors[name] = oracle

        def run(rows, report, underway):
            for row in rows.tolist():
                if self.fate == 0:
                    raise Killed
                self.asked[name, row] += 1
                report(Found(index=row, x=image(self.case, name, row), **self.case.table[name, row]))
                if self.fate is not None:
                    self.fate -= 1

        return SimpleNamespace(run=run)


def chance(most, tried, share):
    """Of at most so many hits in independent tries."""
    return sum(comb(tried, k) * share**k * (1 - share) ** (tried - k) for k in range(most + 1))


def excluded(broken, tried, look, share):
    """Whether such a share or more of the images left is, in a series of looks that errs in one of twenty."""
    return share > 1 or chance(broken, tried, Fraction(share)) < Fraction(1, 20) / 2**look


def reference(case):
    """What comes of each stage and each image, with lists and loops."""
    standing, near = list(case.correct), [Fraction(-1000)] * case.n
    entries, spent, stages, confirmed, noticed, cut_short = {}, 0, [], 0, 0, []
    for stage in case.stages:
        rows = [row for row in range(case.n) if standing[row] and not (case.proved and case.proved[row])]
        left, looks = len(rows), []
        if stage.after:
            won = sum(said["broken"] for (name, _), said in entries.items() if name == stage.after)
            if won == 0 or won < Fraction(stage.tolerance) * case.n:
                rows = []
        if left <= stage.beyond:
            rows = []
        size = case.n
        if stage.tolerance:
            rows.sort(key=lambda row: (-near[row], case.ids[row]))
            size = max(stage.round, -(-len(rows) // 24))
        transferred = case.surrogate is not None and ACCESS[stage.attack] == "gradients"
        attacked = []
        while rows and not (case.budget is not None and spent >= case.budget * case.n):
            now, rows = rows[:size], rows[size:]
            for row in now:
                said = dict(case.table[stage.name, row])
                if transferred:
                    said["margin"] = None
                elif not said["broken"]:
                    noticed += said["refuted"]
                if said["broken"]:
                    noticed += 1 + (0 if transferred else said["refuted"])
                    confirmed += 1
                    standing[row] = False
                if said["margin"] is not None:
                    near[row] = max(near[row], Fraction(said["margin"]))
                spent += said["forwards"] + said["backwards"]
                entries[stage.name, row] = said
                attacked.append(said)
            hits, worth = (sum(entries[stage.name, row]["broken"] for row in now), stage.tolerance * case.n)
            looks.append((sum(said["broken"] for said in attacked), len(attacked), len(looks) + 1))
            few = rows and len(rows) * Fraction(hits, len(now)) < worth
            if few and excluded(*looks[-1], max(Fraction(worth) / len(rows), Fraction(stage.rare))):
                break
        else:
            cut_short += [stage.name] * bool(rows)
        total = {key: sum(said[key] for said in attacked) for key in ("broken", "forwards", "backwards")}
        left -= len(attacked)
        counts = (stage.name, stage.attack, len(attacked), *total.values(), sum(standing), transferred, spent)
        stages.append((*counts, left, looks[-1] if left and looks else None))
    return SimpleNamespace(
        entries=entries, standing=standing, stages=stages, spent=spent, confirmed=confirmed, noticed=noticed,
        cut_short=cut_short,
    )  # fmt: skip


def verdict_of(case, want, row):
    tried = [said | {"stage": name} for (name, at), said in want.entries.items() if at == row]
    seen = [said["margin"] for said in tried if said["margin"] is not None]
    spent = {key: sum(said[key] for said in tried) for key in ("forwards", "backwards")}
    told = {"id": case.ids[row], "label": case.labels[row], **spent, "attack": None, "iteration": 0}
    told |= {"variant": 0, "distance": None, "margin": max(seen, default=None)}
    if not case.correct[row]:
        return told | {"status": "misclassified"}
    if tried and tried[-1]["broken"]:
        last = {key: tried[-1][key] for key in ("iteration", "variant", "distance")}
        return told | last | {"status": "broken", "attack": tried[-1]["stage"], "margin": None}
    return told | {"status": "certified" if case.proved and case.proved[row] else "robust"}


def attacked(case, folder, fate=None):
    """One life of one process."""
    with Ledger(folder, case.data, [stage.name for stage in case.stages], keep=True) as ledger:
        earlier = set(ledger.entries)
        cascade = Scripted(case, ledger, fate)
        stages = []
        for stage in case.stages:
            told = cascade.run(stage)
            counts = (told.name, told.attack, told.attacked, told.broken, told.forwards, told.backwards)
            counts += (told.correct_after, told.transferred, cascade.passes)
            stages.append((*counts, told.left, told.at_most))
        verdicts = [verdict.model_dump() for verdict in cascade.verdicts()]
        ledger.finish()
        return cascade, earlier, stages, verdicts, cascade.adversarial()


def check(case, want, ends):
    rows = {sample: row for row, sample in enumerate(case.ids)}
    searched = Counter()
    for cascade, earlier, stages, verdicts, x in ends:
        assert [told[:-1] for told in stages] == [known[:-1] for known in want.stages]
        for (*_, share), (*_, last) in zip(stages, want.stages, strict=True):
            assert (share is None) == (last is None)
            if last is not None:
                broken, tried, look = last
                assert (
                    share == 1
                    if broken == tried
                    else chance(broken, tried, share) == pytest.approx(0.05 / 2**look)
                )
        digests = [verdict.pop("image_sha256") for verdict in verdicts]
        assert verdicts == [verdict_of(case, want, row) for row in range(case.n)]
        assert cascade.robust.tolist() == want.standing and cascade.passes == want.spent
        assert (cascade.confirmed, cascade.noticed) == (want.confirmed, want.noticed)
        assert cascade.cut_short == want.cut_short
        for row, verdict in enumerate(verdicts):
            by = verdict["attack"]
            assert torch.equal(x[row], image(case, by, row) if by else case.data.images[row])
            assert digests[row] == (files.digest(x[row].numpy().tobytes()) if by else None)
        known = {(name, rows[sample]) for name, sample in earlier}
        assert not known & cascade.asked.keys()
        searched += cascade.asked
        told, again = cascade.progress, Counter(name for name, _ in known)
        assert told.expected == told.done == len(want.entries)
        assert sum(numbers[0] for numbers in told.said if len(numbers) == 2) == sum(again.values())
        if searched:
            assert told.left is None or told.left == pytest.approx(sum(want.standing) / case.n)
        for stage in case.stages:
            if stage.name in cascade.doors:
                transferred = case.surrogate is not None and ACCESS[stage.attack] == "gradients"
                door = (ACCESS[stage.attack], stage.precision or "bfloat16", transferred)
                assert cascade.doors[stage.name] == door
    # Each verdict that was not known is found once, by one process.
    assert searched == Counter(key for key in want.entries if key not in known)


@pytest.mark.parametrize("first", range(0, 240, 60))
def test_it_attacks_and_counts_as_plain_lists_say(first):
    for seed in range(first, first + 60):
        case = drawn(seed)
        check(case, reference(case), [attacked(case, None)])


@pytest.mark.parametrize(("round_", "share"), [(FEW, 0.25), (MANY, 0.1)])
def test_a_round_has_the_fewest_images_whose_silence_excludes_a_share(round_, share):
    assert most_common(0, round_, 1) < share < most_common(0, round_ - 1, 1)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.6])
def test_all_looks_together_err_seldom(share):
    """Stages of five rounds on images that fall independently: one in twenty may state too little."""
    falls = torch.rand(400, 5 * 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64) < share
    seen = falls.cumsum(1)[:, 12::13].tolist()
    wrong = sum(any(most_common(h, 13 * k, k) < share for k, h in enumerate(told, 1)) for told in seen)
    assert wrong <= 0.05 * 400


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_killed_resumed_and_shared_it_leaves_what_one_process_leaves(tmp_path, first):
    for seed in range(first, first + 20):
        case, folder = drawn(1000 + seed), tmp_path / str(seed)
        folder.mkdir()
        want, most = reference(case), 1 + len(case.table) // 4
        for _ in range(case.dice.randint(0, 3)):
            fates = [case.dice.randint(0, most) for _ in range(case.dice.randint(1, 3))]
            lives = Processes(len(fates))
            for end in lives.run(lambda rank, fates=fates: attacked(case, folder, fates[rank])):  # noqa: B023
                assert not isinstance(end, Exception) or isinstance(end, threading.BrokenBarrierError)
            for rank, share in enumerate(case.dice.choices([1, 1, case.dice.random()], k=3)):
                path = folder / (f"verdicts.{rank}.jsonl" if rank else "verdicts.jsonl")
                if path.exists():  # what is behind some byte was not on the disk when the power went
                    content = path.read_bytes()
                    path.write_bytes(content[: int(share * len(content))])
        ends = Processes(case.dice.randint(1, 3)).run(lambda rank: attacked(case, folder))  # noqa: B023
        check(case, want, ends)
        head, *lines = (folder / "verdicts.jsonl").read_text().splitlines()
        rows = {sample: row for row, sample in enumerate(case.ids)}
        order = [(stage.name, row) for stage in case.stages for row in range(case.n)]
        kept = [key for key in order if key in want.entries]
        facts = [want.entries[key] | {"id": case.ids[key[1]], "stage": key[0]} for key in kept]
        assert json.loads(files.unsealed_line(head)) == {"schema": "advkit/verdicts", "version": 3}
        stored = [json.loads(files.unsealed_line(line)) for line in lines]
        for fact in stored:
            found = image(case, fact["stage"], rows[fact["id"]]).numpy().tobytes()
            assert fact.pop("image_sha256") == (files.digest(found) if fact["broken"] else None)
        assert stored == facts
        stored = np.fromfile(folder / "adversarial.bin", np.float32).reshape(case.n, 1, 1, 2)
        for row in range(case.n):
            broken = next((name for name, at in kept if at == row and want.entries[name, at]["broken"]), None)
            assert (stored[row] == (image(case, broken, row).numpy() if broken else 0)).all()
        assert {path.name for path in folder.iterdir()} == {"verdicts.jsonl", "adversarial.bin"}


def entry(sample, *, broken):
    digest = files.digest(np.float32(sample + 1).tobytes()) if broken else None
    facts = {"iteration": 1, "variant": 0, "distance": 0.5, "margin": None, "forwards": 3, "backwards": 2}
    facts["image_sha256"] = digest
    return Entry(id=sample, stage="one", broken=broken, refuted=0, **facts)


def test_an_example_of_complete_verification_counts_no_passes():
    said = {name: value for name, value in asdict(Entry.verified(3, 0.1)).items() if value}
    assert said == {"id": 3, "stage": COMPLETE, "broken": True, "distance": 0.1}


@pytest.mark.parametrize("allowed", range(5))
def test_a_crash_on_the_way_of_merging_loses_nothing(tmp_path, allowed):
    """What was found by three processes is all there, wherever the first dies while it brings it together."""
    data = Data("toy", "test", torch.zeros(6, 1, 1, 1), torch.zeros(6).long(), ("a",), torch.arange(6))

    def life(rank):
        with Ledger(tmp_path, data, ["one", "two"], keep=False) as ledger:
            ledger.add(entry(rank, broken=True), torch.full((1, 1, 1), rank + 1.0))
            ledger.add(entry(rank + 3, broken=False), torch.ones(1, 1, 1))

    Processes(3).run(life)
    unlink, left = Path.unlink, allowed

    def dying(path, **more):
        nonlocal left
        if ".tmp" not in path.name:
            left -= 1
            if left < 0:
                raise Killed
        unlink(path, **more)

    with ExitStack() as stack:
        if allowed < 4:
            stack.enter_context(pytest.raises(Killed))
        stack.enter_context(mock.patch.object(Path, "unlink", dying))
        with Ledger(tmp_path, data, ["one", "two"], keep=False):
            pass
    with Ledger(tmp_path, data, ["one", "two"], keep=False) as again:
        assert again.entries == {("one", sample): entry(sample, broken=sample < 3) for sample in range(6)}
        again.finish()
        assert [float(again.image(again.entries["one", rank])) for rank in range(3)] == [1, 2, 3]
    lines = (tmp_path / "verdicts.jsonl").read_text().splitlines()[1:]
    assert [json.loads(files.unsealed_line(line)) for line in lines] == [
        asdict(entry(k, broken=k < 3)) for k in range(6)
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"verdicts.jsonl", "adversarial.bin"}
    with pytest.raises(OutputError):
        Ledger(tmp_path / "gone", data, ["one"], keep=False)


@pytest.mark.parametrize("allowed", range(9))
def test_a_crash_between_a_nearer_image_and_its_line_loses_nothing(tmp_path, allowed):
    """Of one image there is a success, then a nearer one, and a third: the process dies at any write."""
    data = Data("toy", "test", torch.zeros(2, 1, 1, 1), torch.zeros(2).long(), ("a",), torch.arange(2))
    stages, left = ["one", "two", "three"], [allowed]

    def dying(write, half):
        def call(self, *given):
            left[0] -= 1
            if left[0] < 0:
                half(self, *given)
                raise Killed
            return write(self, *given)

        return call

    def half(writer, row, image):
        writer._file.seek(row * writer._size)
        writer._file.write(b"\xff\xff")

    lives = ExitStack()
    lives.enter_context(mock.patch.object(ImageWriter, "write", dying(ImageWriter.write, half)))
    lives.enter_context(mock.patch.object(Journal, "add", dying(Journal.add, lambda *given: None)))
    added = 0
    with lives, suppress(Killed), Ledger(tmp_path, data, stages, keep=False) as ledger:
        for number, name in enumerate(stages):
            ledger.add(replace(entry(0, broken=True), stage=name), torch.full((1, 1, 1), number + 1.0))
            added += 1
    # A line is written before the image is, in its own place: the first takes two writes, the others three.
    known = sum(allowed >= writes for writes in (2, 4, 7))
    assert added in (known, known - 1)
    told = Told()
    with Ledger(tmp_path, data, stages, keep=False, progress=told) as again:
        assert told.said == [] and [*again.entries] == [(name, 0) for name in stages[:known]]
        again.finish()
        if known:
            assert float(again.image(again.entries[stages[known - 1], 0])) == known
    assert {path.name for path in tmp_path.iterdir()} == {"verdicts.jsonl", "adversarial.bin"}


def test_what_the_rest_of_a_budget_is_enough_for(tmp_path):
    case = drawn(0)
    case.budget, case.surrogate = None, None
    stage = Stage("all", "pgd", {"steps": 3, "restarts": 2})
    with Ledger(None, case.data, ["all"], keep=False) as ledger:
        cascade = Scripted(case, ledger)
        rows = list(range(case.n))
        assert cascade.affordable(stage, rows) == rows
        cascade.config = Evaluation.model_construct(seed=0, precision="bfloat16", budget=9)
        cascade.margin = torch.arange(case.n, dtype=torch.float32)
        for spent, most in (
            (0, 9 * case.n // 14),
            (9 * case.n - 28, 2),
            (9 * case.n - 27, 1),
            (9 * case.n + 5, 0),
        ):
            cascade.passes, cascade.cut_short = spent, []
            assert cascade.affordable(stage, rows) == rows[::-1][:most]
            assert cascade.cut_short == ["all"]
        cascade.passes, cascade.cut_short = 9 * case.n - 28, []
        assert cascade.affordable(stage, [1, 0]) == [1, 0] and not cascade.cut_short


def test_the_accuracy_is_shown_from_the_start_of_a_stage():
    case = drawn(0)
    case.budget = None
    with Ledger(None, case.data, [stage.name for stage in case.stages], keep=False) as ledger:
        cascade = Scripted(case, ledger, 0)
        with pytest.raises(Killed):
            for stage in case.stages:
                cascade.run(stage)
    assert isinstance(cascade.progress.left, Share)
    assert cascade.progress.left == pytest.approx(float(cascade.correct.float().mean()))
    assert cascade.progress.done == 0
