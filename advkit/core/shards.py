"""Shares of the images of one evaluation, each worked on alone, without word of the others.

``--shard 3/8`` does what the plan says of every eighth image from the third on, and leaves it in a run folder
of its own; ``advkit merge`` takes it from there. What an attack finds on an image depends on nothing else, so
what a shard has found is what a single process would. What depends on several images (which rounds a stage
of ``cascade`` has, the random sample of survivors, the checks) is left to the merge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, Protocol, Self, TypeVar

from pydantic import Field, field_validator

from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError
from advkit.core.stored import SummarisedResult, TimedResult

T_co = TypeVar("T_co", covariant=True)


class _Sliced(Protocol[T_co]):
    def __getitem__(self, index: slice, /) -> T_co: ...


class Sharded(StrictModel):
    """Settings of what can be done in shares."""

    shard: str | None = None
    """Only the K-th of N shares of the images, as 3/8, without word of the others; `advkit merge` makes one
    result of all shares."""

    @field_validator("shard")
    @classmethod
    def _a_share(cls, value: str | None) -> str | None:
        found = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", "1/1" if value is None else value)
        if found is None or int(found[1]) > int(found[2]):
            raise ValueError("a share is K/N with K from 1 to N, as 3/8")
        return value

    @property
    def share(self) -> tuple[int, int]:
        """Its number, from 1, and how many there are."""
        number, _, count = (self.shard or "1/1").partition("/")
        return int(number), int(count)

    def mine(self, rows: _Sliced[T_co]) -> T_co:
        """Every N-th of a sequence from the K-th on; without a shard all of it."""
        number, count = self.share
        return rows[number - 1 :: count]

    def refuse(self, n: int, **joint: object) -> None:
        """Raises a `ConfigError` for fewer images than shares, or for an option (given, and not empty) whose
        meaning depends on the images of other shards."""
        if self.shard is None:
            return
        if n < self.share[1]:
            raise ConfigError(f"{n} images have no {self.share[1]} shares; name fewer with --shard")
        for name, value in joint.items():
            if value is not None and value is not False:
                raise ConfigError(
                    f"--{name.replace('_', '-')} depends on all images, and --shard {self.shard} knows only "
                    "its own; leave one of them out",
                    code="not-in-shards",
                )


class ShardResult(SummarisedResult, TimedResult):
    """That a shard is done, and what it cost; its findings are in the record beside it."""

    command = "attack, certify, smooth and curve --shard"

    schema_name: Literal["advkit/shard"] = Field("advkit/shard", alias="schema")
    shard: str
    settings: dict[str, Any]
    """Of the command, without the shard."""
    n: int
    """Images of all shards together."""
    images: int
    """Images of this one."""
    records: int
    """What it has found out: one for each image, or one for each image and attack."""
    forwards: int
    """Passes of the attacks; 0 where none are counted."""
    backwards: int
    model_hash: str

    @classmethod
    def of(cls, config: Sharded, n: int, entries: Iterable[Any], about: dict[str, Any]) -> Self:
        """From the number of all images, the entries of the record, and what every result says."""
        found = list(entries)
        return cls(
            shard=config.shard or "1/1",
            settings=config.model_dump(mode="json", exclude={"shard"}),
            n=n,
            images=len(config.mine(range(n))),
            records=len(found),
            forwards=sum(getattr(entry, "forwards", 0) for entry in found),
            backwards=sum(getattr(entry, "backwards", 0) for entry in found),
            **{name: about[name] for name in ("model_hash", "seconds", "environment")},
        )

    def summary(self) -> str:
        """One line for people."""
        return f"shard {self.shard} is done: {self.images:,} of {self.n:,} images, {self.records:,} records"
