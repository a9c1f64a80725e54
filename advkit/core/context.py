"""Where and how a command runs; nothing here changes its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advkit.core.config import StrictModel
from advkit.core.progress import SILENT, Progress
from advkit.core.runs import RunFolder


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
    parts: tuple[Path, ...] = ()
    """Run folders of shards (`advkit.core.shards`), whose records the run takes over."""
    dry_run: bool = False
    """Say what would be done and what it would cost, and stop."""
    progress: Progress = SILENT

    def run_folder(
        self,
        command: str,
        label: str,
        config: StrictModel,
        inputs: Mapping[str, Any],
        *,
        beside: Path | tuple[Path, ...] | None = None,
    ) -> RunFolder:
        """Opens the run folder of a command, as `RunFolder.open`.

        Args:
            label: last part of a new folder's name.
            beside: the files that ``out`` asks for, if it names no run folder.
        """
        out = None if beside else self.out
        return RunFolder.open(
            command,
            label,
            config,
            out,
            inputs=inputs,
            resume=self.resume,
            parts=self.parts,
            progress=self.progress,
        )
