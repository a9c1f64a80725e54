"""Work that kill -9 ends at any moment, and that goes on, ends as work that is left alone.

    python recipes/bench/kills.py --kills 20
    python recipes/bench/kills.py --kills 20 --only attack,merge
    python recipes/bench/kills.py --kills 20 -- gan-train --data digits --steps 1500

Of each kind (an attack, a GAN's training, adversarial training, certification, a security curve, a shard,
writes to the model store; or the command behind --) one run is left alone. Then others are killed, each at a
moment between its beginning and the time that the first took, drawn anew, and are started again until they
have been killed --again times or get through. Of every run the files must have the same bytes, except those
that tell of time and place, models the same hashes, and results the same values. No run may call something
damaged. ``merge`` kills 8 shards and their merge, and compares this with the unsharded attack, also in
passes. Processes are forked, so that they are killed at work and not while they import PyTorch.
Expected time for all with 20 kills: about 10 minutes on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from advkit.cli.app import app
from advkit.commands import COMMANDS
from advkit.core import files
from advkit.core.shards import ShardResult
from advkit.data.load import load_data
from advkit.models.checkpoint import load_checkpoint
from advkit.models.store import Store

ELSEWHERE = {"seconds", "environment", "sha256", "resumed_at", "created", "files"}
"""Members of results that tell of time and place."""
APART = {"env.json", "report.html", ".lock", "state.pt", "state-previous.pt"}
"""Files that do."""
CLASSIFIER = "train --data digits --arch mlp --epochs 5 --out clf.pt"
ATTACK = "attack --model clf.pt --eps 0.1 --n 64 --attack pgd,square --set parameters.square.queries=100"
WORK = {
    "attack": f"{ATTACK} --check-sample 2",
    "gan-train": "gan-train --data digits --arch mlp-gan --steps 60 --checkpoint-every 10 --sample-every 30 "
    "--augment shift --augment-target 0.6",
    "adv-train": "adv-train --model clf.pt --eps 0.1 --epochs 2 --checks 2",
    "certify": "certify --model clf.pt --norm linf --eps 0.02 --n 359 --method optimised --batch-size 16",
    "curve": "curve --model clf.pt --norm l2 --attack ddn,fmn --n 100 --set parameters.ddn.steps=40 "
    "--set parameters.fmn.steps=40",
    "shard": f"{ATTACK} --shard 2/3",
}
SHARDS = 8


class Ended(NamedTuple):
    """How a process ended."""

    killed: bool
    said: str
    seconds: float


def started(work: Callable[[], Any], folder: Path, after: float | None = None) -> Ended:
    """A process that does the work, killed after so many seconds if it works for so long."""
    log, begun = folder / "said.txt", time.perf_counter()
    if (pid := os.fork()) == 0:
        code = 70
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            work()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    status: int | None = None
    while status is None:
        found, how = os.waitpid(pid, os.WNOHANG)
        if found:
            status = os.waitstatus_to_exitcode(how)
        elif after is not None and time.perf_counter() - begun > after:
            os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        else:
            time.sleep(0.002)
    said = log.read_text("utf-8", "replace")
    if status not in (0, 1, -signal.SIGKILL):
        raise SystemExit(f"a process ended with {status}:\n{said}")
    return Ended(status == -signal.SIGKILL, said, time.perf_counter() - begun)


def content(folder: Path) -> dict[str, Any]:
    """What a run left, by its files, without what tells of time and place."""
    left: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in APART):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            left[name] = load_checkpoint(path).hash
        elif path.suffix == ".json":
            left[name] = _timeless(files.read_json(path))
        elif path.name == "metrics.jsonl":
            left[name] = [_timeless(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
        else:
            left[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return left


def differing(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two contents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [at for key in keys for at in differing(one.get(key), other.get(key), f"{place}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [at for number, pair in pairs for at in differing(*pair, f"{place}/{number}")]
    return [] if one == other else [f"{place}: {one!s:.40} for {other!s:.40}"]


def _timeless(values: Any) -> Any:
    if isinstance(values, list):
        return [_timeless(value) for value in values]
    if not isinstance(values, dict):
        return values
    return {
        key: _timeless(value)
        for key, value in values.items()
        if key not in ELSEWHERE and not key.endswith("per_second")
    }


class Kind:
    """Work in a folder, which is killed and goes on.

    Args:
        scratch: where its folders are.
        name: of the kind.
        work: does all of it in a folder, or what is left of it.
        moments: of the kills.
    """

    def __init__(self, scratch: Path, name: str, work: Callable[[Path], Any], moments: random.Random) -> None:
        self.scratch, self.name, self.work, self.moments = scratch, name, work, moments
        alone = started(lambda: work(self.place("whole")), scratch)
        self.whole, self.took = content(self.place("whole")), alone.seconds

    def place(self, number: object) -> Path:
        """A folder of this kind."""
        return self.scratch / f"{self.name}-{number}"

    def killed(self, number: int, again: int) -> tuple[int, list[str]]:
        """How often a run was killed until it got through, and the faults of what it left."""
        place, kills, said = self.place(number), 0, ""
        while kills < again:
            end = started(lambda: self.work(place), self.scratch, self.moments.uniform(0, self.took))
            said += end.said
            if not end.killed:
                break
            kills += 1
        else:
            said += started(lambda: self.work(place), self.scratch).said
        left = content(place)
        faults = differing(left, self.whole)
        return kills, faults + [line for line in said.splitlines() if "damaged" in line]


def command(words: str) -> Callable[[Path], None]:
    """The work of a command."""
    return lambda out: app.main([*words.split(), "--out", str(out)])


def writes(out: Path) -> None:
    """Writes two models to a store, again and again under a few names; what is named must always be whole."""
    store = Store(out)
    kept = [load_checkpoint(Path(name)) for name in ("clf.pt", "other.pt")]
    known = {model.hash for model in kept}
    for name, digest in store.names().items():
        assert digest in known and store.get(name).hash == digest, f"{name} is not whole"
    assert not store.damaged, f"damaged: {store.damaged}"
    for number in range(12):
        store.add(kept[number % 2], f"model-{number % 5}")


def merge(scratch: Path, kills: int, moments: random.Random) -> str:
    """Kills shards and their merge, and compares with the unsharded attack, in files and in passes."""
    started(lambda: command(ATTACK)(scratch / "unsharded"), scratch)
    runs = [scratch / f"part-{number}" for number in range(1, SHARDS + 1)]
    jobs = [(f"{ATTACK} --shard {number}/{SHARDS}", run) for number, run in enumerate(runs, 1)] + [
        (f"merge {' '.join(map(str, runs))}", scratch / "merged")
    ]
    share = started(lambda: command(jobs[0][0])(scratch / "share"), scratch).seconds
    left, said, seconds = kills, "", 0.0
    for place, (words, run) in enumerate(jobs):
        wanted = left - left * (len(jobs) - place - 1) // (len(jobs) - place)
        for _ in range(wanted):
            end = started(lambda: command(words)(run), scratch, moments.uniform(0, share))  # noqa: B023
            left, said = left - end.killed, said + end.said
            if not end.killed:
                break
        end = started(lambda: command(words)(run), scratch)  # noqa: B023
        said, seconds = said + end.said, seconds + end.seconds
    first, second = content(scratch / "unsharded"), content(scratch / "merged")
    faults = differing(first, second)
    whole = files.read_json(scratch / "merged" / "result.json")
    passes = whole["forwards"] + whole["backwards"]
    shards = [ShardResult.load(run) for run in runs]
    again = sum(one.images for one in shards)  # the clean passes of the shards
    return (
        f"{kills - left} kills of {SHARDS} shards and their merge: {faults or 'equal'}"
        f"{', and something was called damaged' if 'damaged' in said else ''}; "
        f"{(passes + again) / passes:.4f} of the passes of one process"
    )


def main() -> None:
    """Kills and compares."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--kills", type=int, default=20, help="of each kind")
    options.add_argument("--again", type=int, default=2, help="kills of one run, at most")
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    options.add_argument("--only", default="", help="kinds, separated by commas")
    options.add_argument("command", nargs="*", help="of advkit, with its options, behind --")
    chosen = options.parse_args()
    moments, bad = random.Random(chosen.seed), 0
    torch.set_num_threads(1)
    load_data("digits", "test")
    for one in COMMANDS.values():  # import what is needed, so that children are killed at work
        if one.name in ("attack", "gan-train", "adv-train", "certify", "curve", "merge"):
            _ = one.run, one.config
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        os.chdir(scratch)
        os.environ["ADVKIT_HOME"] = str(scratch / "home")
        works: dict[str, Callable[[Path], Any]] = {name: command(words) for name, words in WORK.items()}
        works["store"] = writes
        if chosen.command:
            works = {"command": lambda out: app.main([*chosen.command, "--out", str(out)])}
        else:
            started(lambda: app.main(CLASSIFIER.split()), scratch)
            started(lambda: app.main([*CLASSIFIER.replace("clf", "other").split(), "--seed", "1"]), scratch)
        only = chosen.only.split(",") if chosen.only else [*works, "merge"]
        for name in (name for name in works if name in only):
            kind, kills, runs, wrong = Kind(scratch, name, works[name], moments), 0, 0, 0
            while kills < chosen.kills:
                more, faults = kind.killed(runs, min(chosen.again, chosen.kills - kills))
                kills, runs, wrong = kills + more, runs + 1, wrong + (more if faults else 0)
                if faults:
                    print(f"  {name}, run {runs}, killed {more} times: {faults}", flush=True)
            bad += wrong
            print(
                f"{name}: left alone {kind.took:.1f} s; {kills} kills in {runs} runs, {kills - wrong} equal",
                flush=True,
            )
        if "merge" in only and not chosen.command:
            said = merge(scratch, 10, moments)
            bad += "equal" not in said or "damaged" in said
            print(f"merge: {said}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
