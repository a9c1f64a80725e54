"""Results as files: JSON that says what it is, and in which version of the format."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any, ClassVar, Self

from advkit.core import files
from advkit.core.config import StrictModel, validate
from advkit.core.errors import ConfigError, DataError
from advkit.core.run_list import numbered


def html_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table for a notebook, of plain text."""

    def row(cells: Iterable[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{row(columns, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


class StoredResult(StrictModel):
    """Base of the results that commands leave as ``result.json``; each has a field ``schema_name``, known in
    the file as ``schema``."""

    command: ClassVar[str]
    """That writes it, or those that do."""
    newest: ClassVar[int] = 1
    """Version of the format that this advkit writes."""
    counted: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Fields that count the verdicts, each with the ``status`` of those that it counts."""
    added: ClassVar[tuple[str, ...]] = ()
    """Fields that a file without a seal, so of advkit 0.2 or earlier, may lack."""

    version: int = 1

    def as_values(self) -> dict[str, Any]:
        """The whole result as plain values."""
        return self.model_dump(mode="json", by_alias=True)

    def to_json(self) -> str:
        """The whole result as JSON text; `from_json` reads it back."""
        return files.json_text(self.as_values(), indent=1)

    def to_dict(self) -> dict[str, Any]:
        """The same as `as_values`."""
        return self.as_values()

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame``: a row for each image; of a result without images, one row of its figures.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas  # type: ignore[import-untyped]
        except ImportError as error:
            raise ConfigError("a data frame needs pandas; pip install pandas") from error
        values = self.as_values()
        for key in ("verdicts", "images"):
            if isinstance(values.get(key), list):
                return pandas.DataFrame(values[key])
        return pandas.DataFrame([{k: v for k, v in values.items() if not isinstance(v, dict | list)}])

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "result") -> Self:
        """Reads `to_json`'s text.

        Raises:
            DataError: it is no JSON, another result, or one of a newer version; ``where`` says which.
        """
        try:
            values = files.parsed(text)
        except ValueError as error:
            raise DataError(
                f"{where} is not JSON ({error}); give a result of advkit {cls.command}"
            ) from error
        schema = cls.model_fields["schema_name"].default
        if not isinstance(values, dict) or values.get("schema") != schema:
            raise DataError(f"{where} is no result of advkit {cls.command}; give one")
        try:
            if files.SEAL not in values and (lacking := cls._lacking(values)):
                raise ValueError(f"it has no {', '.join(lacking)}")
            values = files.unsealed(values)
        except ValueError as error:
            raise DataError(f"{where} is damaged ({error}); take another copy") from error
        version = values.get("version")
        if isinstance(version, int) and version > cls.newest:
            raise DataError(
                f"{where} was written by a newer advkit (version {version} of the format, this one "
                f"reads {cls.newest}); upgrade advkit to read it"
            )
        try:
            values = cls.of_today(values)
        except (AttributeError, KeyError, TypeError) as error:  # other values than the older versions had
            raise DataError(f"{where} is no result of advkit {cls.command}; give one") from error
        result = validate(cls, values, where)
        if wrong := result._miscounted():
            raise DataError(f"{where} is damaged ({wrong} is not what its verdicts say); take another copy")
        return result

    @classmethod
    def _lacking(cls, values: dict[str, Any]) -> list[str]:
        """Fields that would be read as their defaults although every version has written them."""
        known = {field.alias or name for name, field in cls.model_fields.items() if not field.is_required()}
        return sorted(known - {"version", *cls.added} - values.keys())

    def _miscounted(self) -> str | None:
        """The first count, or share of all, that the verdicts do not come to."""
        verdicts = getattr(self, "verdicts", ())
        found = Counter(verdict.status for verdict in verdicts)
        counts = {name: sum(found[status] for status in which) for name, which in self.counted.items()}
        truth: dict[str, float] = {"n": len(verdicts), **counts} if counts else {}
        for name in counts:
            if name.endswith("_correct"):
                truth[name.replace("_correct", "_accuracy")] = counts[name] / max(1, len(verdicts))
        given = {name: getattr(self, name, None) for name in truth}
        return next((name for name in truth if given[name] not in (None, truth[name])), None)

    @classmethod
    def of_today(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values of an older version as this one has them."""
        return values

    @classmethod
    def load(cls, path: Path | str | int) -> Self:
        """Reads a ``result.json``, or that of a run folder, which its number names too.

        Raises:
            DataError: there is none, or as in `from_json`.
        """
        name, path = path, Path(str(path))
        if not path.exists():
            path = numbered(name) or path
        file = path / "result.json" if path.is_dir() else path
        if not file.exists():
            raise DataError(f"there is no result at {file}; give a run folder or a result.json")
        try:
            text = files.read(file)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{file} cannot be read ({error}); give a result of advkit {cls.command}"
            ) from error
        return cls.from_json(text, str(file))


class SummarisedResult(StoredResult):
    """A result that can be said in one line."""

    @abstractmethod
    def summary(self) -> str:
        """One line for people."""

    @property
    def sentence(self) -> str:
        """That line with a capital and a full stop."""
        line = self.summary()
        return f"{line[0].upper()}{line[1:]}."

    def said(self, *lines: str) -> str:
        """What was assumed or left out, the summary, and further lines."""
        return "\n".join((*(f"note: {note}" for note in getattr(self, "notes", ())), self.summary(), *lines))

    def __str__(self) -> str:
        return self.said()

    def _html(self, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
        """What it says, and a table, for a notebook."""
        return "".join(f"<p>{escape(line)}</p>" for line in str(self).splitlines()) + html_table(
            columns, rows
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {'; '.join((self.summary(), *getattr(self, 'notes', ())))}>"


class TimedResult(StoredResult):
    """A result whose time and place `advkit.core.runs.RunFolder.once` fills in, if the work has not."""

    seconds: float = 0.0
    """Of this process; a resumed run does not include earlier processes."""
    environment: dict[str, str] = {}


class ConfiguredResult(SummarisedResult, TimedResult):
    """A result that says how it was configured."""

    settings: dict[str, Any]
    """All parameters, defaults too."""
