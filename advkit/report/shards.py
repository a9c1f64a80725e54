"""The outcome of a shard, from its result."""

from __future__ import annotations

from pathlib import Path

from advkit.core.shards import ShardResult
from advkit.report.outcome import Outcome


def shard(result: ShardResult, folder: Path) -> Outcome:
    """The outcome of ``--shard K/N``."""
    number, _, count = result.shard.partition("/")
    passes = f"{result.forwards:,} forward and {result.backwards:,} backward passes of attacks. "
    return Outcome(
        title=f"shard {number} of {count}",
        sentences=(
            result.sentence,
            f"{passes if result.forwards else ''}A shard has no accuracy of its own: when all {count} are "
            "done, `advkit merge` makes the result of their folders.",
        ),
        files=(folder,),
        stored=result,
    )
