"""Run evaluations on each of several models, one after the other."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from advkit.commands import COMMANDS, current
from advkit.core.config import StrictModel, validate
from advkit.core.context import Context
from advkit.core.errors import BusyError, ConfigError, UserError, did_you_mean
from advkit.core.stored import SummarisedResult
from advkit.report.outcome import Outcome, Table

GROUP = "Robustness"
EXAMPLE = "advkit run sweep.toml"
BESIDE = "run"


class Config(StrictModel):
    """Run evaluations on each of several models, one after the other, and list what they found.

    Usually from a file, with advkit run; there recipes = ["mine.toml", "attack/digits-pgd"] adds recipes by
    name. Each evaluation has a run folder of its own inside the sweep's, so the same command goes on after a
    crash. One that fails does not end the others; it is tried again when the command is given again.
    """

    model: tuple[str, ...] = ()
    """Models, separated by commas; by default each evaluation's own."""
    evaluation: dict[str, dict[str, Any]] = Field(min_length=1)
    """By name, evaluations: a command and its keys, as in a recipe."""


class Row(StrictModel):
    """One evaluation of a sweep."""

    evaluation: str
    model: str
    """Empty where the evaluation names several, or none."""
    command: str
    folder: str
    """Inside the sweep's."""
    state: Literal["done", "missed", "failed"]
    """Missed: a threshold, such as min_robust."""
    found: str
    """The result, or what went wrong, in one line."""
    trusted: bool | None = None
    """Whether the checks trust it; None without checks."""


class SweepResult(SummarisedResult):
    """What the evaluations of a sweep found."""

    command = "sweep"

    schema_name: Literal["advkit/sweep"] = Field("advkit/sweep", alias="schema")
    rows: tuple[Row, ...]
    seconds: float
    """Of the evaluations in this process."""

    def summary(self) -> str:
        """One line for people."""
        counts = {state: sum(row.state == state for row in self.rows) for state in ("missed", "failed")}
        said = [f"{count} {state}" for state, count in counts.items() if count]
        return f"{len(self.rows)} evaluations{''.join(f', {one}' for one in said)}"


@dataclass(frozen=True)
class _Job:
    name: str
    model: str
    command: str
    settings: StrictModel

    @property
    def title(self) -> str:
        return f"{self.name} on {self.model}" if self.model else self.name


def run(config: Config, context: Context) -> Outcome:
    """Runs the evaluations that are not finished, and lists all."""
    jobs = [
        _job(name, keys, model) for name, keys in config.evaluation.items() for model in config.model or ("",)
    ]
    if context.dry_run:
        return _plan(jobs, context)
    begun, rows = time.perf_counter(), []
    with context.run_folder("sweep", "-".join(config.evaluation), config, {}) as folder:
        for number, job in enumerate(jobs, 1):
            context.progress.say(f"{number}/{len(jobs)} advkit {job.command}: {job.title}")
            own = f"{number:02d}-{re.sub(r'[^A-Za-z0-9]+', '-', f'{job.name}-{job.model}').strip('-')}"
            rows.append(_done(job, folder.path / own, context))
        result = SweepResult(rows=tuple(rows), seconds=time.perf_counter() - begun)
        if not any(row.state == "failed" for row in rows):
            result = folder.once(SweepResult, lambda: result)
        return _outcome(result, folder.path)


def _job(name: str, keys: Mapping[str, Any], model: str) -> _Job:
    values = dict(keys)
    command = current(str(values.pop("command", "")))
    if command not in COMMANDS or command == "sweep":
        raise ConfigError(
            f"evaluation {name!r} has no command{did_you_mean(command, COMMANDS)}; give one, as in a recipe"
        )
    kind = COMMANDS[command].config
    if model and "model" not in kind.model_fields:
        raise ConfigError(f"evaluation {name!r}: {command} takes no model; leave it, or the models, out")
    values |= {"model": model} if model else {}
    settings = validate(kind, values, f"evaluation {name!r}")
    own = getattr(settings, "model", "")
    return _Job(name, own if isinstance(own, str) else "", command, settings)


def _done(job: _Job, place: Path, context: Context) -> Row:
    state: Literal["done", "missed", "failed"] = "failed"
    trusted = None
    try:
        outcome = COMMANDS[job.command].run(job.settings, replace(context, out=place, resume=False))
    except BusyError:
        raise
    except UserError as fault:
        found = str(fault)
        context.progress.say(f"{job.title} failed: {fault}")
    else:
        state, stored = "done" if outcome.passed else "missed", outcome.stored
        trusted = getattr(stored, "trusted", None)
        said = stored.summary() if isinstance(stored, SummarisedResult) else " ".join(outcome.sentences[:1])
        found = said or outcome.title
    return Row(
        evaluation=job.name,
        model=job.model,
        command=job.command,
        folder=place.name,
        state=state,
        found=found,
        trusted=trusted,
    )


def _outcome(result: SweepResult, folder: Path) -> Outcome:
    states = {state: [row for row in result.rows if row.state == state] for state in ("missed", "failed")}
    warning = ""
    if states["failed"]:
        names = ", ".join(row.folder for row in states["failed"])
        warning = (
            f"Failed: {names}; mend what the table says, and give the same command again for these alone."
        )
    trust = {True: "yes", False: "doubted", None: ""}
    rows = tuple(
        (row.evaluation, row.model, row.state, row.found, trust[row.trusted], row.folder)
        for row in result.rows
    )
    return Outcome(
        title="sweep",
        sentences=(result.sentence, *([warning] if warning else [])),
        warning=warning,
        tables=(Table("evaluations", ("evaluation", "model", "state", "found", "trusted", "folder"), rows),),
        files=(folder,),
        stored=result,
        passed=not (states["failed"] or states["missed"]),
    )


def _plan(jobs: list[_Job], context: Context) -> Outcome:
    rows = []
    for job in jobs:
        planned = COMMANDS[job.command].run(job.settings, context)
        rows.append((job.name, job.model, job.command, " ".join(planned.sentences)))
    return Outcome(
        "what would be done",
        (f"{len(jobs)} evaluations, one after the other.",),
        (Table("in turn", ("evaluation", "model", "command", "what"), tuple(rows)),),
        result={"evaluations": [row[:3] for row in rows]},
    )
