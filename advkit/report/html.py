"""One HTML page of the outcomes of commands: no network, pictures inside; for sharing.

Only a page whose table can be sorted has a script, ``table.js``.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from advkit import __version__
from advkit.core import files
from advkit.report import charts
from advkit.report.outcome import Outcome, Picture


def render(
    outcomes: Outcome | Sequence[Outcome], *, title: str, command: str, environment: Mapping[str, str]
) -> str:
    """The page.

    Args:
        outcomes: one section each; with a single one its title is the page's.
        command: the command line that reproduces it.
        environment: versions and machine, as `advkit.core.runs.environment` gives them.
    """
    import jinja2

    pages = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters |= {"code": _code, "css": _css}
    place = resources.files("advkit.report")
    template = pages.from_string(place.joinpath("page.html.jinja").read_text("utf-8"))
    sections = [outcomes] if isinstance(outcomes, Outcome) else list(outcomes)
    sorts = any(table.filters for section in sections for table in section.tables)
    return template.render(
        sections=sections,
        title=title,
        command=command,
        environment=environment,
        version=__version__,
        style=charts.STYLE,
        script=place.joinpath("table.js").read_text("utf-8") if sorts else "",
        source=_source,
        bars=_bars,
    )


def write(
    path: Path,
    outcomes: Outcome | Sequence[Outcome],
    *,
    title: str,
    command: str,
    environment: Mapping[str, str],
) -> None:
    """Writes the page of `render`.

    Raises:
        OutputError: the place cannot be written.
    """
    files.write_text(path, render(outcomes, title=title, command=command, environment=environment))


def _code(text: str) -> str:
    """HTML of a text in which backticks mark `commands`."""
    from markupsafe import Markup, escape

    pairs, _, last = text.rpartition("`")
    if pairs.count("`") % 2 == 0:
        return escape(text)
    parts = [*pairs.split("`"), last]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def _css(text: str) -> str:
    """A text as CSS takes it between its marks."""
    from markupsafe import Markup

    plain = "".join(sign if sign.isalnum() or sign in " ,.:%-" else f"\\{ord(sign):x} " for sign in text)
    return Markup(f'"{plain}"')


def _bars(outcome: Outcome) -> str:
    return charts.bars(outcome.title, outcome.bars, legend=outcome.legend)


def _source(picture: Picture) -> str | None:
    """The picture as a data URL; None if the file has been removed since."""
    if picture.path is None or not picture.path.exists():
        return None
    kind = mimetypes.guess_type(picture.path.name)[0] or "image/png"
    return f"data:{kind};base64," + base64.b64encode(picture.path.read_bytes()).decode("ascii")
