"""The runs under ``runs/``: what each was, and what it found in a line.

A listing reads three small files of each folder, ``resolved.json``, ``env.json`` and ``summary.json``; for
runs of earlier versions, which have no ``summary.json``, also ``result.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from advkit.core import files
from advkit.core.errors import ConfigError, DataError

RUNS = Path("runs")
SUMMARY = "summary.json"
_NUMBER = re.compile(r"(\d{5,})-")

Trust = Literal["trusted", "doubted"]


@dataclass(frozen=True)
class RunRow:
    """One run, as listings show it."""

    number: int | None
    """Of its folder's name; None for a folder that was named with ``--out``."""
    path: Path
    command: str
    model: str
    """As it was named; several are separated by commas."""
    data: str
    started: str
    """ISO 8601, in UTC."""
    state: Literal["finished", "unfinished", "damaged"]
    trust: Trust | None
    """What the checks say of its number; None where there are no checks."""
    found: str
    """Its result in one line; of a damaged folder what is wrong with it."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "path": str(self.path)}

    def mentions(self, command: str | None, model: str | None, data: str | None, trust: Trust | None) -> bool:
        """Whether it is of this command and trust, and these words are in the names of its model and data."""
        return (
            command in (None, self.command)
            and (model or "").lower() in self.model.lower()
            and (data or "").lower() in self.data.lower()
            and trust in (None, self.trust)
        )


def runs(
    *,
    command: str | None = None,
    model: str | None = None,
    data: str | None = None,
    trust: Trust | None = None,
) -> list[RunRow]:
    """The runs under ``runs/`` in the working folder, the newest first.

    Args:
        command: only runs of this command, such as ``"attack"``.
        model: only runs whose model's name contains this, in capitals or not.
        data: only runs whose data set's name contains this.
        trust: only ``"trusted"`` or ``"doubted"`` numbers.

    Returns:
        A row each. Damaged folders are among them, with the state ``"damaged"``, unless something is asked
        for.

    Example:
        >>> import advkit
        >>> for row in advkit.runs(command="attack", trust="doubted"):
        ...     print(row.number, row.found)
    """
    rows = [read(path) for path in _folders()]
    chosen = [row for row in rows if row.mentions(command, model, data, trust)]
    return sorted(chosen, key=lambda row: (row.started, row.number or 0, row.path), reverse=True)


def read(path: Path) -> RunRow:
    """The row of one run folder, whatever is in it."""
    number = number_of(path)
    try:
        resolved, config = _values(path / "resolved.json", "command", "config")
        config = dict(config)
        environment = files.read_json(path / "env.json")
        summary = _summary(path)
    except (OSError, ValueError, TypeError, KeyError, DataError) as fault:
        found = f"{type(fault).__name__}: {fault}"
        return RunRow(number, path, "", "", "", "", "damaged", None, found)
    return RunRow(
        number,
        path,
        command=resolved,
        model=_names(config.get("model") or config.get("runs")),
        data=str((summary or {}).get("data") or _names(config.get("data"))),
        started=str(environment.get("started", "")),
        state="unfinished" if summary is None else "finished",
        trust=None if not summary or summary.get("trusted") is None else _trust(bool(summary["trusted"])),
        found="" if summary is None else str(summary.get("summary", "")),
    )


def number_of(path: Path) -> int | None:
    """Of a run folder, by its name."""
    match = _NUMBER.match(path.name)
    return int(match[1]) if match else None


def began_with(path: Path) -> dict[str, Any]:
    """The inputs of the run in a folder: hashes, and the plan of an attack."""
    return dict(files.read_json(path / "resolved.json").get("inputs", {}))


def numbered(run: object) -> Path | None:
    """The folder under ``runs/`` that has this number, ``12`` or ``"12"``; None if there is none."""
    text = str(run)
    found = sorted(RUNS.glob(f"{int(text):05d}-*")) if re.fullmatch(r"[0-9]{1,9}", text) else []
    return found[0] if found else None


def find(run: str | int | Path) -> Path:
    """The folder or result file of a run that is named by its number or its path.

    Raises:
        ConfigError: there is none; its code is ``run-not-found``.
    """
    path = numbered(run) if isinstance(run, int) or not Path(run).exists() else Path(run)
    if path is None:
        raise ConfigError(
            f"there is no run {run}: it is no path, and no number of a folder under {RUNS}/; "
            "`advkit runs` lists them",
            code="run-not-found",
        )
    return path


def _folders() -> list[Path]:
    if not RUNS.is_dir():
        return []
    return [path for path in RUNS.iterdir() if path.is_dir() and _is_run(path)]


def below(top: Path) -> list[Path]:
    """The run folders in a folder at any depth, and the folder itself if it is one."""
    return sorted(path for path in (top, *top.rglob("*")) if path.is_dir() and _is_run(path))


def _is_run(path: Path) -> bool:
    return number_of(path) is not None or (path / "resolved.json").exists()


def _values(path: Path, *keys: str) -> list[Any]:
    values = files.read_json(path)
    return [values[key] for key in keys]


def _summary(path: Path) -> dict[str, Any] | None:
    """What a finished run says of itself; None for one that is not finished."""
    if not (path / "result.json").exists():
        return None
    if (path / SUMMARY).exists():
        return files.read_json(path / SUMMARY)
    result = files.read_json(path / "result.json")
    checks = result.get("checks")
    return {
        "summary": ", ".join(_figures(result)),
        "trusted": all(check["verdict"] == "ok" for check in checks) if checks else None,
        "data": result["data"].get("name") if isinstance(result.get("data"), dict) else result.get("data"),
    }


def _figures(result: Mapping[str, Any]) -> list[str]:
    """The shares among a result's figures, in words."""
    return [
        f"{name.replace('_', ' ')} {100 * value:.1f} %"
        for name, value in result.items()
        if name.endswith("_accuracy") and isinstance(value, float)
    ]


def _trust(trusted: bool) -> Trust:
    return "trusted" if trusted else "doubted"


def _names(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value or "")
