"""click commands whose help has named groups of options and ends with an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from advkit.core.errors import did_you_mean


class Option(click.Option):
    """An option that help lists under the heading ``group``."""

    def __init__(self, *declarations: Any, group: str = "Options", **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self.group = group


class Operands(click.Argument):
    """Any number of words without a flag, which help lists among the options."""

    group = "Options"

    def __init__(self, name: str, about: str, kind: click.ParamType) -> None:
        super().__init__(["operands"], nargs=-1, metavar=f"{name.upper()}...", type=kind)
        self.about = about

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Name and meaning."""
        return self.metavar or "", self.about


class Described(click.Command):
    """A command that explains itself.

    Args:
        example: command lines that work, one per line.
        notes: what else ``--set`` takes, and what it means.
    """

    def __init__(
        self, *args: Any, example: str, notes: Sequence[tuple[str, str]] = (), **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.example, self.notes = example, notes

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Nothing: newer versions of click would list operands once more."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Operands and options under their groups' headings, in the order of first mention."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "Other options"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)
        if self.notes:
            with formatter.section("Keys for --set"):
                formatter.write_dl(self.notes)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example, never wrapped, so that it can be copied."""
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


class DescribedGroup(Described, click.Group):
    """A group of commands with an example; alone it prints its help."""

    command_class = Described

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Help is no fault when nothing was asked for."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name when there is none."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"there is no command {name!r}{did_you_mean(name, self.list_commands(ctx))}.")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands first: they are what one looks for."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)
