"""Pretend to work."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from advkit.core.config import Fraction, StrictModel
from advkit.core.context import Context
from advkit.core.errors import ModelError
from advkit.report.outcome import Outcome, Picture, Table

GROUP = "Start"
EXAMPLE = "advkit fake --model clf.pt"
OPERANDS = "beside"

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63f80f00010101001bb6ee560000000049454e44ae426082"
)


class Config(StrictModel):
    """Pretend to work, for as long as it takes.

    Nothing is computed.
    """

    model: str
    """What to pretend with."""
    steps: int = Field(3, ge=1)
    """How often to pretend."""
    eps: Fraction = 0.25
    """Budget."""
    norm: Literal["linf", "l2"] = "linf"
    """Kind of budget."""
    attack: tuple[str, ...] = ("pgd", "noise")
    """What to pretend."""
    beside: tuple[str, ...] = ()
    """What else."""
    labels: int | Literal["all"] = "all"
    """How many labels."""
    min_robust: float | None = None
    """The bar."""
    scratch: bool = False
    """Whether to begin anew."""
    inner: dict[str, Any] = {}
    """Parameters of the pretence."""


def run(config: Config, context: Context) -> Outcome:
    """What ``config.model`` says."""
    if config.model == "fault":
        raise ModelError("fault: the file is empty; give another one with --model")
    if config.model == "bug":
        raise RuntimeError("inside")
    if config.model == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x")
    if config.model == "huge":
        import torch

        torch.zeros(1 << 55)
    if config.model == "endless":
        context.progress.say("waiting")
        signal.pause()
    if config.model == "self-destruct":
        os.kill(os.getpid(), signal.SIGTERM)
    with context.progress.task("pretending", config.steps) as task:
        for step in range(config.steps):
            task.advance(loss=1 / (step + 1))
    written: tuple[Path, ...] = ()
    pictures: tuple[Picture, ...] = ()
    if context.out is not None and not context.dry_run:
        context.out.mkdir()
        (context.out / "grid.png").write_bytes(PNG)
        pictures = (Picture("Samples", context.out / "grid.png", "what it made"),)
        written = (context.out / "grid.png", context.out)
    return Outcome(
        "fake: done",
        ("It is done.",),
        (Table("accuracy", ("attack", "accuracy"), (("clean", "97.0 %"), ("pgd", "4.0 %"))),),
        pictures,
        written,
        ("advkit fake --model " + "very-long-name-" * 8,),
        {"config": config.model_dump(), "dry_run": context.dry_run, "device": context.device},
        passed=config.min_robust is None or config.min_robust < 0.04,
    )
