"""Where and how a command runs; nothing here changes its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from advkit.core.progress import SILENT, Progress


@dataclass(frozen=True)
class Context:
    """Where and how to work; nothing here changes what is computed."""

    out: Path | None = None
    """A run folder, or the model or image file that the command is asked for; None: a new numbered run."""
    resume: bool = False
    """Insist on going on with an earlier run."""
    overwrite: bool = False
    """An output file that exists may be replaced."""
    device: str = "auto"
    data_dir: Path | None = None
    """Folder of the data sets; None: ``$ADVKIT_DATA`` or the user's data folder."""
    dry_run: bool = False
    """Say what would be done and what it would cost, and stop."""
    progress: Progress = SILENT
