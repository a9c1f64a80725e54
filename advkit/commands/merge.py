"""Make one result of the shards of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from advkit.commands import COMMANDS
from advkit.core import distributed
from advkit.core.config import StrictModel, validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.run_list import find
from advkit.core.runs import began
from advkit.core.shards import Sharded, ShardResult
from advkit.report.outcome import Outcome

GROUP = "Robustness"
EXAMPLE = "advkit merge runs/shard-1 runs/shard-2 runs/shard-3 --out runs/whole"
OPERANDS = "runs"
DISTRIBUTED = True
BESIDE = "attack"


class Config(StrictModel):
    """Make the result of the shards of attack, certify, smooth or curve (--shard K/N).

    It is the result that the command has without --shard, and leaves the same files. What the shards have
    found out is taken over; what depends on images of several shards, such as the checks and the later stages
    of cascade, is done here. A merge that was interrupted goes on when it is started again.
    """

    runs: tuple[str, ...] = Field(min_length=1)
    """The run folders of all shards, or their numbers, in any order."""


def run(config: Config, context: Context) -> Outcome:
    """Runs the command of the shards, with what they found out."""
    folders = [find(name) for name in config.runs]
    name, settings = _together(folders)
    command = COMMANDS[name]
    if distributed.world() > 1 and not command.distributed:
        raise ConfigError(f"advkit {name} works in one process; merge its shards without torchrun")
    return command.run(settings, replace(context, parts=tuple(folders)))


def _together(folders: Sequence[Path]) -> tuple[str, Sharded]:
    """The command of shards that belong together and are all there, and its settings without a shard."""
    found: dict[int, Path] = {}
    first, _, count = _of(folders[0])
    for folder in folders:
        command, number, of = _of(folder)
        if (command, of) != (first, count):
            raise _others(folder, folders[0], f"{command}, shard {number}/{of}")
        if number in found:
            raise ConfigError(f"{folder} is shard {number}/{of}, as is {found[number]}; name one of them")
        found[number] = folder
    left = [n for n in range(1, count + 1) if n not in found or not (found[n] / "result.json").exists()]
    if left:
        raise ConfigError(
            f"not finished, or not named: {', '.join(f'{number}/{count}' for number in left)}; run the same "
            f"command with --shard {left[0]}/{count}, and name its folder",
            code="shards-missing",
        )
    kind, settings = COMMANDS[first].config, None
    for folder in found.values():
        own = validate(kind, ShardResult.load(folder).settings, str(folder))
        settings = settings or own
        if differing := [name for name, value in own.identity if value != getattr(settings.identity, name)]:
            raise _others(folder, folders[0], ", ".join(differing))
    assert isinstance(settings, Sharded)
    return first, settings


def _of(folder: Path) -> tuple[str, int, int]:
    """The command of a shard, its number, and how many there are."""
    run = began(folder / "resolved.json")
    if not (shard := run["config"].get("shard")):
        raise ConfigError(f"{folder} is no shard; name the run folders of commands with --shard")
    number, count = Sharded(shard=shard).share
    return run["command"], number, count


def _others(folder: Path, first: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{folder} is no shard of the run of {first} (it differs in {what}); name the shards of one run",
        code="run-differs",
    )
