"""Shards that are killed, run again and merged are the run of one process, to the byte."""

import itertools
import random
import re
import shutil
from unittest import mock

import numpy as np
import pytest
import torch

from advkit.attacks.ensemble import Stage
from advkit.commands import COMMANDS
from advkit.core import files, shards
from advkit.core.config import StrictModel, validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError, UserError
from advkit.core.journal import Journal, Record
from advkit.core.runs import RunFolder
from advkit.core.shards import Sharded, ShardResult
from advkit.evaluation.cascade import certain
from advkit.models.checkpoint import save_model
from advkit.report.shards import shard

COMMAND = {
    "attack": {"norm": "linf", "eps": 0.02, "attack": "fgsm,cascade", "check_sample": 3},
    "curve": {"norm": "l2", "attack": "ddn,fmn", "parameters": {"ddn": {"steps": 9}, "fmn": {"steps": 9}}},
    "certify": {"norm": "linf", "eps": 0.004, "batch_size": 4},
    "smooth": {"sigma": 0.1, "samples": 200, "selection": 20},
}
ELSEWHERE = ("seconds", "environment", "cost", "sha256")


@pytest.fixture
def here(judged, tmp_path):
    """A model and data beside the test."""
    model, data = judged
    save_model(model, tmp_path / "clf.pt")
    np.savez(tmp_path / "toy.npz", x=data.images.numpy(), y=data.labels.numpy())
    return tmp_path


def run(name, out, parts=(), **given):
    given = {"model": "clf.pt", "data": "npz:toy.npz", **COMMAND.get(name, {}), **given}
    given["runs"] = [str(one) for one in given.get("runs", ())]
    given = {key: value for key, value in given.items() if key in COMMANDS[name].config.model_fields}
    return COMMANDS[name].run(validate(COMMANDS[name].config, given, name), Context(out=out, parts=parts))


class Killed(BaseException):
    pass


def killed(name, out, at, **given):
    """Dies in place of the ``at``-th record, or gets through."""
    left, add = [at], Journal.add

    def adding(self, line):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        add(self, line)

    with mock.patch.object(Journal, "add", adding):
        try:
            run(name, out, **given)
        except Killed:
            return True
    return False


def content(folder):
    """Of each file but those that name the time, the place and the machine."""
    left = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    result = files.read_json(folder / "result.json")
    for name in ("env.json", "result.json", ".lock"):
        left.pop(name)
    return left, {key: value for key, value in result.items() if key not in ELSEWHERE}


@pytest.mark.parametrize("name", COMMAND)
def test_shards_are_the_run_of_one_process(here, name):
    dice, count = random.Random(name), 3
    run(name, here / "whole")
    folders = [here / f"shard-{number}" for number in range(1, count + 1)]
    deaths = 0
    for number, folder in enumerate(folders, 1):
        while killed(name, folder, dice.randint(2, 6) if deaths < 4 else 0, shard=f"{number}/{count}"):
            deaths += 1
        with pytest.raises(ConfigError) as fault:
            run("merge", here / "early", runs=folders[:number] if number < count else folders[1:])
        assert fault.value.code == "shards-missing" and not (here / "early").exists()
    assert deaths >= 3
    results = [files.read_json(folder / "result.json") for folder in folders]
    assert [one["images"] for one in results] == [10, 10, 10] and {one["n"] for one in results} == {30}
    said = " ".join(shard(ShardResult.load(folders[0]), folders[0]).sentences)
    assert not re.search(r"\b0\b", said)  # passes that nobody counted
    dice.shuffle(folders)
    with mock.patch.object(Record, "add", autospec=True, side_effect=Record.add) as added:
        run("merge", here / "merged", runs=folders)
    assert content(here / "merged") == content(here / "whole")
    taken = sum(one["records"] for one in results)
    new = added.call_count - taken  # what the merge has found out itself
    if name == "attack":
        assert new > 0 and sum(one["forwards"] for one in results) > 0 < results[0]["backwards"]
    else:
        assert new == 0


def test_a_damaged_record_of_a_shard_is_done_again(here):
    run("attack", here / "whole", attack="pgd")
    folders = [here / "1", here / "2"]
    for number, folder in enumerate(folders, 1):
        run("attack", folder, attack="pgd", shard=f"{number}/2")
    lines = (folders[0] / "verdicts.jsonl").read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b'"forwards":', b'"forwards":1')
    (folders[0] / "verdicts.jsonl").write_bytes(b"\n".join(lines))
    images = bytearray((folders[1] / "adversarial.bin").read_bytes())
    images[:] = b"\0" * len(images)
    (folders[1] / "adversarial.bin").write_bytes(images)
    run("merge", here / "merged", runs=folders)
    assert content(here / "merged") == content(here / "whole")


def test_merge_refuses_what_is_no_whole(here):
    for number, seed in itertools.product((1, 2), (0, 1)):
        run("attack", here / f"{number}-{seed}", attack="fgsm", shard=f"{number}/2", seed=seed)
    run("attack", here / "third", attack="fgsm", shard="3/3")
    run("attack", here / "whole", attack="fgsm")
    run("smooth", here / "other", shard="2/2")
    shutil.copytree(here / "1-0", here / "copy")
    for names, code in (
        (["1-0", "2-1"], "run-differs"),
        (["1-0", "other"], "run-differs"),
        (["1-0", "third"], "run-differs"),
        (["1-0", "copy"], "invalid-config"),
        (["1-0", "whole"], "invalid-config"),
        (["1-0"], "shards-missing"),
    ):
        with pytest.raises(ConfigError) as fault:
            run("merge", here / "merged", runs=[here / name for name in names])
        assert fault.value.code == code, names
    (here / "empty").mkdir()
    for name in ("empty", "1-0/result.json", "."):
        with pytest.raises(UserError) as fault:
            run("merge", here / "merged", runs=[here / name])
        assert fault.value.code == "run-not-found", name
    # A shard of another machine, where the plan was another.
    resolved = files.read_json(here / "2-0" / "resolved.json")
    resolved["inputs"]["plan of attack"]["precision"] = "another"
    files.write_json(here / "2-0" / "resolved.json", {k: v for k, v in resolved.items() if k != "sha256"})
    with pytest.raises(ConfigError) as fault:
        run("merge", here / "merged", runs=[here / "1-0", here / "2-0"])
    assert fault.value.code == "run-differs"


@pytest.mark.parametrize(
    "joint",
    [{"budget": 5}, {"certify": True}, {"min_robust": 0.0}, {"save": "x.npz"}, {"model": "noisy"}],
    ids=lambda joint: next(iter(joint)),
)
def test_what_depends_on_all_images_is_refused(here, joint, monkeypatch):
    if "model" in joint:
        from advkit.data.subjects import Subject

        found = Subject.of

        def noisy(*args, **how):
            subject = found(*args, **how)
            object.__setattr__(subject.facts, "deterministic", False)
            return subject

        monkeypatch.setattr(Subject, "of", noisy)
        joint = {"allow_random": True}
    with pytest.raises(ConfigError) as fault:
        run("attack", here / "1", attack="fgsm", shard="1/2", **joint)
    assert fault.value.code == "not-in-shards"


def test_shares():
    for n, count in itertools.product((1, 2, 7, 8), (1, 2, 3, 7)):
        parts = [Sharded(shard=f"{k}/{count}").mine(range(n)) for k in range(1, count + 1)]
        assert sorted(row for part in parts for row in part) == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert Sharded().mine([1, 2]) == [1, 2] and Sharded().share == (1, 1)
    Sharded().refuse(0, save="x")
    Sharded(shard="1/3").refuse(3, save=None, certify=False)
    with pytest.raises(ConfigError):
        Sharded(shard="1/3").refuse(2)
    for wrong in ("3", "0/2", "3/2", "1/2/3", "-1/2", "1/0", "", "a/b", "1 / 2"):
        with pytest.raises(ConfigError):
            validate(Sharded, {"shard": wrong}, "shares")
    assert shards.ShardResult.model_fields.keys() >= {"shard", "settings"}


def test_certain_stages_come_before_all_that_depend_on_others():
    def stages(*said):
        return [Stage(f"{k}", "fgsm", tolerance=t, after=a) for k, (t, a) in enumerate(said)]

    assert [s.name for s in certain(stages((0, None), (0, None), (0.1, None), (0, None)))] == ["0", "1"]
    assert certain(stages((0, "x"), (0, None))) == []


def test_a_record_takes_only_what_is_asked_for(tmp_path):
    class Fact(StrictModel):
        id: int
        said: str

    def of(folder, **more):
        folder.mkdir(exist_ok=True)
        return Record[int, Fact](folder, "facts", 1, Fact, [4, 2, 7, 9], **more)

    with of(tmp_path / "part") as part:
        for sample in (2, 4, 7):
            part.add(Fact(id=sample, said="theirs"))
        part.finish()
    with of(tmp_path / "whole", parts=[tmp_path / "part"]) as whole:
        whole.add(Fact(id=4, said="mine"))
        whole.take([4, 7, 9])
        assert {sample: fact.said for sample, fact in whole.entries.items()} == {4: "mine", 7: "theirs"}
        whole.finish()
    assert [*of(tmp_path / "whole").entries] == [4, 7]
    with RunFolder.open("attack", "toy", StrictModel(), tmp_path / "run") as folder:
        assert folder.parts == ()


def test_a_shard_looks_at_the_same_images_before_it_searches(here):
    """Whether the copy that is searched agrees with the model is measured on the same images everywhere."""
    from advkit.evaluation import cascade

    seen = []

    def searched(model, precision, few, access):
        seen.append(few)
        return model

    with mock.patch.object(cascade, "search_model", searched):
        for shard in (None, "2/3"):
            run("attack", here / f"of {shard and 'two'}", attack="fgsm", shard=shard)
    assert len(seen) >= 2 and all(torch.equal(few, seen[0]) for few in seen)
