"""Run folders: the results of long work, and the checkpoints to resume it after a crash.

``runs/00012-gan-train-digits/`` holds ``resolved.json`` (the whole configuration, and hashes of what the run
began with), ``env.json`` (versions and machine), ``metrics.jsonl``, ``state.pt`` (to resume; the one before
stays beside it, should a disk spoil the last), and what the work makes.
Running the same command again goes on where the last process stopped; a folder is never overwritten.
"""

from __future__ import annotations

import io
import json
import math
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from itertools import compress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, TypeVar

from advkit import __version__
from advkit.core import distributed, files
from advkit.core.config import StrictModel
from advkit.core.errors import BusyError, ConfigError, DataError, OutputError, UserError
from advkit.core.progress import SILENT, Progress
from advkit.core.run_list import RUNS, SUMMARY
from advkit.core.stored import StoredResult, SummarisedResult, TimedResult

if TYPE_CHECKING:  # it takes as long to import as all of this
    from filelock import FileLock

Result = TypeVar("Result", bound=StoredResult)

STATES = ("state.pt", "state-previous.pt")
"""What a resume needs: the last state, and the one before it."""
ROUNDING = 0.03
"""How far measured numbers may be apart, as a part of the largest: bfloat16 on another device, and more."""
METRICS = "metrics.jsonl"
"""Key of a state for the metrics up to it."""


def environment() -> dict[str, str]:
    """Versions and machine, as every result records them."""
    packages = ("torch", "torchvision", "numpy", "adversarial-robustness-toolbox")
    return {
        "advkit": __version__,
        **{name: metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "processes": str(distributed.world()),
    }


def now() -> str:
    """The time as ISO 8601, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunFolder:
    """One run's folder, locked for this process while it is open; a context manager.

    Where several processes share the work (`advkit.core.distributed`), all open the folder; the first holds
    the lock and writes, and what would write does nothing in the others.

    Attributes:
        path: the folder.
        resumed: an earlier process began this run.
        finished: an earlier process completed it; ``result()`` has what it said.
        parts: run folders of shards, whose records it takes over.
    """

    def __init__(
        self,
        path: Path,
        lock: FileLock | None,
        *,
        resumed: bool,
        parts: Sequence[Path] = (),
        progress: Progress = SILENT,
    ) -> None:
        self.path, self.resumed, self.parts, self._progress = path, resumed, parts, progress
        self._lock = lock
        self._metrics: IO[str] | None = None

    @classmethod
    def open(
        cls,
        command: str,
        label: str,
        config: StrictModel,
        out: Path | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        resume: bool = False,
        parts: Sequence[Path] = (),
        progress: Progress = SILENT,
    ) -> RunFolder:
        """Opens the run of this configuration: the unfinished one if there is one, else a new one.

        Args:
            command: "gan-train", ...; with the configuration it says which run this is.
            label: last part of a new folder's name, for people.
            config: the resolved configuration; its ``identity`` counts.
            out: folder to use; by default the next free number under ``runs/``.
            inputs: what the run begins with, as in `begin_with`.
            resume: insist that there is a run to go on with.
            parts: run folders of shards, whose records it takes over.
            progress: where `once` says that there is nothing left to do.

        Raises:
            ConfigError: the folder holds a run of another configuration (with the list of what differs), or
                one that began with something else, or there is nothing to resume.
            BusyError: another process is working in the folder.
            OutputError: the folder cannot be made.
        """
        values = config.identity.model_dump(mode="json")
        identity = _plain({"command": command, "config": values, "inputs": inputs or {}})
        fields = type(config).model_fields.items()
        defaults = _plain({name: field.get_default() for name, field in fields if not field.is_required()})
        with distributed.together():
            claimed: tuple[Path, FileLock, bool] | None = None
            if distributed.rank() == 0:
                with files.writing(out or RUNS):
                    claimed = _claim(identity, defaults, label, out, resume=resume, progress=progress)
            shared = distributed.share(claimed and (claimed[0], claimed[2]))
            assert shared is not None  # process 0 has found a folder, or raised in all of them
            lock = claimed and claimed[1]
            return cls(shared[0], lock, resumed=shared[1], parts=parts, progress=progress)

    def begin_with(self, **inputs: Any) -> None:
        """Notes what the run begins with beside its configuration: hashes of models and data, for example.

        A name stays the same when the file behind it is replaced. So a command states the hashes of what
        is given before resuming earlier work, or before showing its result.

        Raises:
            ConfigError: the run did not begin with the same, or one of its `parts` did not.
        """
        if self._lock is None:
            return
        path = self.path / "resolved.json"
        resolved = began(path)
        known, given = resolved.get("inputs", {}), _plain(inputs)
        _refuse_other_inputs(self.path, known, given)
        for part in self.parts:
            if others := _others(began(part / "resolved.json")["inputs"], given):
                raise ConfigError(
                    f"{part} is of a shard that did not begin with the same {' and '.join(others)} as here; "
                    "merge on a machine of the same kind and with the same files, or run this shard again",
                    code="run-differs",
                )
        if given.keys() - known.keys():
            files.write_json(path, {**resolved, "inputs": {**known, **given}})

    def known(self, name: str) -> Any:
        """What `begin_with` noted under a name, in this process or an earlier one; None if nothing."""
        return began(self.path / "resolved.json")["inputs"].get(name)

    @property
    def finished(self) -> bool:
        """Whether `finish` was called, by this process or an earlier one."""
        return (self.path / "result.json").exists()

    def result(self) -> dict[str, Any]:
        """What `finish` was given."""
        return files.read_json(self.path / "result.json")

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes ``result.json`` and drops the state that only a resume would need."""
        if self._lock is None:
            return
        files.write_json(self.path / "result.json", result)
        for name in STATES:
            (self.path / name).unlink(missing_ok=True)

    def summarise(self, result: StoredResult) -> None:
        """Writes ``summary.json``, what listings say of a finished run."""
        if self._lock is None:
            return
        data = getattr(result, "data", None)
        summary = {
            "summary": result.summary() if isinstance(result, SummarisedResult) else "",
            "trusted": getattr(result, "trusted", None),
            "data": getattr(data, "name", data),
        }
        files.write_json(self.path / SUMMARY, summary)

    def once(self, kind: type[Result], work: Callable[[], StoredResult | None]) -> Result:
        """The result of the work, read if it was completed earlier, else computed now.

        Args:
            work: computes it; of several processes only the first must return it.
        """
        if self.finished:
            self._progress.say(f"{self.path} is finished; showing its result")
            return kind.load(self.path)
        with distributed.together():
            begun = time.perf_counter()
            result = work()
            if isinstance(result, TimedResult) and "environment" not in result.model_fields_set:
                spent = time.perf_counter() - begun
                result = result.model_copy(update={"seconds": spent, "environment": environment()})
            assert result is None or isinstance(result, kind)
            if result is not None:
                self.summarise(result)
                self.finish(result.as_values())
        return result or kind.load(self.path)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Writes what a resume needs: tensors and plain types only; ``state["step"]`` is required."""
        if self._lock is None:
            return
        import torch

        buffer = io.BytesIO()  # torch.save would hide a full disk behind an error of its own
        torch.save({**state, METRICS: self._text(state["step"])}, buffer)
        last, before = (self.path / name for name in STATES)
        with files.writing(self.path):
            if last.exists():
                last.replace(before)
        files.write_sealed(last, buffer.getvalue())

    def load_state(self, *needed: str) -> dict[str, Any] | None:
        """What `save_state` wrote last, on the CPU, or None; the metrics become those up to that step.

        Where the last file is missing or damaged, the one before it counts.

        Args:
            *needed: keys of the state.

        Raises:
            ConfigError: the state lacks one of them; nothing is changed.
        """
        for path in (self.path / name for name in STATES):
            if (state := self._state(path)) is not None:
                if not state.keys() >= set(needed):
                    raise ConfigError(
                        f"{self.path} holds an unfinished run of another version of advkit, which cannot be "
                        "resumed; delete the folder or choose another with --out",
                        code="run-differs",
                    )
                self._restore_metrics(state["step"], state.pop(METRICS, None))
                return state
        self._restore_metrics(-math.inf, None)
        return None

    def _state(self, path: Path) -> dict[str, Any] | None:
        """The state in a file, unless there is none or something is damaged, which is said."""
        import torch

        if not path.exists():
            return None
        try:
            content = files.read_sealed(path)
            return dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        except Exception:  # a damaged file fails in as many ways as it has bytes
            earlier = path.with_name(STATES[1])
            going_on = earlier != path and earlier.exists()
            way = f"going on from {earlier.name}" if going_on else "beginning anew"
            self._progress.say(f"{path} is damaged; {way}")
            return None

    def metrics(self, step: int, **values: float | str) -> None:
        """Appends a row to ``metrics.jsonl``."""
        if self._lock is None:
            return
        with files.writing(self.path / "metrics.jsonl"):
            if self._metrics is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                number = files.opened(self.path / "metrics.jsonl", flags, own=True)
                self._metrics = os.fdopen(number, "a", encoding="utf-8", newline="\n")
            self._metrics.write(json.dumps({"step": step, **values}) + "\n")
            self._metrics.flush()

    def history(self) -> list[dict[str, Any]]:
        """All rows of ``metrics.jsonl``."""
        return history(self.path)

    def _text(self, step: float) -> str:
        """The metrics up to a step, as lines of their file."""
        rows = [row for row in self.history() if isinstance(row, dict)]
        steps = [row.get("step") for row in rows]
        fitting = [isinstance(at, int | float) and at <= step for at in steps]
        return "".join(json.dumps(row) + "\n" for row in compress(rows, fitting))

    def _restore_metrics(self, step: float, known: str | None) -> None:
        """The file as it was at a step: ``known`` is what the state says, if it does."""
        path = self.path / "metrics.jsonl"
        if self._lock is None or not (known or path.exists()):
            return
        found = self._text(step)
        if known is not None and known != found:
            self._progress.say(f"{path} was damaged; its rows come from the state")
        files.write_text(path, found if known is None else known)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._metrics is not None:
            self._metrics.close()
        if self._lock is not None:
            self._lock.release()


def history(folder: Path) -> list[dict[str, Any]]:
    """All rows of the ``metrics.jsonl`` in a run folder."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    with files.writing(path):  # which could not be gone on with
        lines = files.read(path, sys.maxsize, own=True).splitlines()
    for line in lines:
        try:
            rows.append(files.parsed(line))
        except ValueError:
            break  # the line that a crash cut short
    return rows


def refuse_other(path: Path) -> None:
    """Raises a `ConfigError` for what is no run folder."""
    if not (path.is_dir() and ((path / "resolved.json").exists() or path.parent == RUNS)):
        raise ConfigError(f"{path} is no run folder; `advkit runs` lists them", code="run-not-found")


def remove(path: Path) -> None:
    """Deletes a run folder.

    Raises:
        ConfigError: it is no run folder.
        BusyError: a process is working in it.
    """
    refuse_other(path)
    lock = _lock(path)
    try:
        with files.writing(path):
            shutil.rmtree(path)
    finally:
        lock.release()


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    return dict(json.loads(files.json_text(values)))


def began(path: Path) -> dict[str, Any]:
    """What a run began with. Older versions wrote the bytes of a name that is no text as half a character.

    Raises:
        DataError: it is damaged, or the folder holds no run.
    """
    try:
        found = _plain(files.read_json(path))
    except OSError as error:
        raise DataError(
            f"{path.parent} is no run folder ({path.name}: {error.strerror}); `advkit runs` lists them",
            code="run-not-found",
        ) from error
    groups = (found.get("config"), found.setdefault("inputs", {}))
    if not (isinstance(found.get("command"), str) and all(isinstance(group, dict) for group in groups)):
        raise DataError(f"{path} is damaged (it names no command and configuration); delete its folder")
    return found


def _claim(
    identity: Mapping[str, Any],
    defaults: Mapping[str, Any],
    label: str,
    out: Path | None,
    *,
    resume: bool,
    progress: Progress,
) -> tuple[Path, FileLock, bool]:
    """The folder of this run, its lock, and whether the run was begun earlier.

    What an older version did not write yet had its default then.
    """
    path, lock = _unfinished(identity, defaults, progress) if out is None else (out, None)
    begun = path is not None and (path / "resolved.json").exists()
    if out is not None and not begun and out.is_dir():
        # A process that was killed at its beginning left its lock, and half of what it began with.
        ours = {out / ".lock", *out.glob(".resolved.json.*.tmp")}
        if not ours.issuperset(out.iterdir()):
            raise OutputError(
                f"{out} holds other files; choose a new folder with --out", code="already-exists"
            )
    if resume and not begun:
        raise ConfigError(
            f"{out} holds no run to resume; leave --resume out to begin one there"
            if out is not None
            else f"no unfinished {identity['command']} run with these parameters under {RUNS}/; "
            "name its folder with --out, or leave --resume out to begin a new one",
            code="nothing-to-resume",
        )
    if path is None:
        path = _new_folder(f"{identity['command']}-{re.sub(r'[^A-Za-z0-9.]+', '-', label)}")
    path.mkdir(parents=True, exist_ok=True)
    lock, resolved = lock or _lock(path), path / "resolved.json"
    try:
        for half in path.glob(".*.tmp"):  # written when an earlier process was killed
            half.unlink(missing_ok=True)
        if begun := resolved.exists():
            _refuse_changes(path, _begun(resolved, defaults), identity)
        else:
            files.write_json(resolved, identity)
            started = {**environment(), "started": now(), "argv": sys.argv}
            files.write_json(path / "env.json", started)
    except BaseException:
        lock.release()
        raise
    return path, lock, begun


def _begun(path: Path, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What a run began with."""
    before = began(path)
    return {**before, "config": {**defaults, **before["config"]}}


def _lock(path: Path) -> FileLock:
    """An exclusive lock that the system lets go of when the process ends, however it ends."""
    from filelock import FileLock, Timeout

    if (path / ".lock").is_symlink():
        raise OutputError(
            f"{path / '.lock'} is a link, and no lock of advkit; remove it, or name another folder"
        )
    lock = FileLock(path / ".lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise BusyError(
            f"another process is working in {path}; wait for it to end, or choose another folder with --out"
        ) from error
    return lock


def _new_folder(name: str) -> Path:
    RUNS.mkdir(exist_ok=True)
    numbers = [int(match[1]) for path in RUNS.iterdir() if (match := re.match(r"(\d{5})-", path.name))]
    number = max(numbers, default=0) + 1
    while True:
        path = RUNS / f"{number:05d}-{name}"
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1


def _unfinished(
    identity: Mapping[str, Any], defaults: Mapping[str, Any], progress: Progress
) -> tuple[Path | None, FileLock | None]:
    """The newest folder with an unfinished run of this command, configuration and inputs, and its lock."""
    for path in sorted(RUNS.glob("*-*/resolved.json"), reverse=True):
        folder = path.parent
        if (folder / "result.json").exists():
            continue
        try:
            before = _begun(path, defaults)
        except (DataError, OSError) as error:
            progress.say(f"passed over {folder}: {error}")
            continue
        same = all(before[key] == identity[key] for key in ("command", "config"))
        if same and not _others(before.get("inputs", {}), identity["inputs"]):
            try:
                lock = _lock(folder)
            except UserError as error:
                if not isinstance(error, BusyError):
                    progress.say(f"passed over {folder}: {error}")
                continue
            if not (folder / "result.json").exists():  # else its last process has just finished it
                return folder, lock
            lock.release()
    return None, None


def _refuse_changes(path: Path, before: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    if before["command"] != identity["command"]:
        raise ConfigError(
            f"{path} holds a {before['command']} run; choose another folder with --out", code="run-differs"
        )
    old, new = before["config"], identity["config"]
    changed = [
        f"{key} was {old.get(key)!r}, is now {new.get(key)!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise ConfigError(
            f"{path} holds a run with other parameters ({'; '.join(changed)}); "
            "give the same ones to resume it, or choose another folder with --out",
            code="run-differs",
        )
    _refuse_other_inputs(path, before.get("inputs", {}), identity["inputs"])


def _refuse_other_inputs(path: Path, known: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if others := _others(known, given):
        raise ConfigError(
            f"{path} holds a run that did not begin with the same {' and '.join(others)}; "
            "choose another folder with --out",
            code="run-differs",
        )


def _others(known: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Names of what was something else, as far as it is known what it was."""
    return [name for name in given if name in known and not _same(known[name], given[name])]


def _same(one: Any, other: Any) -> bool:
    """Whether two inputs are equal; measured numbers, which another machine rounds otherwise, nearly so."""
    if not all(isinstance(x, list) and x and all(isinstance(y, float) for y in x) for x in (one, other)):
        return bool(one == other)
    apart = max(map(abs, map(float.__sub__, one, other)))
    return len(one) == len(other) and apart <= ROUNDING * max(map(abs, one))
