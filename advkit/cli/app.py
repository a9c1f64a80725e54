"""The command line: what there is, by name. The code of a command is imported when it is called."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, NamedTuple

import click

import advkit
from advkit.cli import faults, options
from advkit.cli.described import DescribedGroup
from advkit.commands import COMMANDS, current
from advkit.core import cores, distributed
from advkit.core.named import at


class Lazy(NamedTuple):
    """A command that neither measures nor trains: it lists, copies, removes."""

    group: str
    summary: str
    at: str
    """``module:name`` of its `click.Command`."""
    beside: str = ""
    """The command whose line in help tells of it."""


HOUSEKEEPING = {
    "ls": Lazy("Start", "list data sets, architectures, attacks, recipes", "advkit.cli.ls:ls"),
    "gate-init": Lazy("Robustness", "write a policy from a run", "advkit.cli.gate_init:gate_init", "gate"),
    "run": Lazy("Recipes", "run a recipe (cp: copy one, validate: check one)", "advkit.cli.recipe:run"),
    "cp": Lazy("Recipes", "copy a recipe to edit it", "advkit.cli.recipe:cp", "run"),
    "validate": Lazy("Recipes", "report all errors in a recipe", "advkit.cli.recipe:validate", "run"),
    "models": Lazy("Storage", "list, show, export, import and remove models", "advkit.cli.models:models"),
    "data": Lazy("Storage", "list and download data sets", "advkit.cli.data:data"),
    "runs": Lazy("Storage", "list, show, remove runs (board, card: show many)", "advkit.cli.runs:runs"),
    "completion": Lazy("Shell", "complete names in bash, zsh or fish", "advkit.cli.completion:completion"),
}

OVERVIEW = """\
advkit {version}: train GANs, attack classifiers, harden them, and report numbers one can trust.

Three commands to try now; none of them downloads anything:

  advkit quickstart      the whole job on real digits, in a few minutes, on a CPU
  advkit gan-train       train a GAN on the bundled digits and look at what it draws
  advkit ls recipes      experiments that are ready to run

advkit --help lists all commands.
"""


def _plain(fault: UnicodeError) -> tuple[bytes, int]:
    """What a stream cannot hold: lines are drawn with ASCII, all else is escaped."""
    assert isinstance(fault, UnicodeEncodeError)
    text = fault.object[fault.start : fault.end].translate(_ASCII)
    return text.encode(fault.encoding, "backslashreplace"), fault.end


_ASCII = str.maketrans("├└─│", "+`-|")
codecs.register_error("advkit-plain", _plain)


class App(DescribedGroup):
    """The root: those of `advkit.commands`, and the housekeeping."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Older names too, and names of two words: ``gate init`` is ``gate-init``."""
        if "-".join(args[:2]) in (*COMMANDS, *HOUSEKEEPING):
            args = ["-".join(args[:2]), *args[2:]]
        return super().resolve_command(ctx, [current(args[0]), *args[1:]])

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, by group."""
        return [name for _, commands in sections() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's module."""
        if cmd_name in COMMANDS:
            return options.command(COMMANDS[cmd_name])
        if cmd_name in HOUSEKEEPING:
            found: click.Command = at(HOUSEKEEPING[cmd_name].at)
            return found
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A line each, from the summaries alone; its group on the left of the first."""
        formatter.write_paragraph()
        for group, commands in sections():
            for name, summary in commands.items():
                if not (HOUSEKEEPING.get(name) or COMMANDS[name]).beside:
                    formatter.write(f"{group:12} {name:15} {summary}\n")
                    group = ""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands, then the two options on one line, so that all fits on one screen."""
        self.format_commands(ctx, formatter)
        formatter.write(
            f"{'Options':12} {'-h, --version':15} show this help (of any command), or the version\n"
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example, without a line between."""
        formatter.write(f"Example:\n  {self.example}\n")

    def main(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> Any:
        """Runs the command line and exits with a code of `advkit.cli.faults`."""
        if "_ADVKIT_COMPLETE" in os.environ:  # the shell asks what it could complete to
            return super().main(args, "advkit")
        words = list(sys.argv[1:] if args is None else args)
        cores.limit_threads()
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by the caller
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="advkit-plain")

        def work() -> None:
            with self.make_context("advkit", list(words), obj=words) as context:
                self.invoke(context)

        sys.exit(faults.guard(work))


def sections() -> list[tuple[str, dict[str, str]]]:
    """Groups, and in each the commands' names and summaries."""
    found: dict[str, dict[str, str]] = {}
    for command in COMMANDS.values():
        found.setdefault(command.group, {})[command.name] = command.summary
    for name, lazy in HOUSEKEEPING.items():
        found.setdefault(lazy.group, {})[name] = lazy.summary
    return list(found.items())


@click.group(
    "advkit",
    cls=App,
    example="advkit quickstart",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(advkit.__version__, message="advkit %(version)s")
@click.pass_context
def app(context: click.Context) -> None:
    """Adversarial robustness: train GANs; attack, certify and harden classifiers.
    Exit codes: 0 done, 1 threshold not met, 2 wrong input, 70 internal error.
    """
    if context.invoked_subcommand is None:
        click.echo(OVERVIEW.format(version=advkit.__version__), nl=False)


def main() -> None:
    """Entry point of the ``advkit`` command, whose process it is: others call `app`."""
    try:
        app.main()
    except SystemExit as end:
        if distributed.launched():
            distributed.leave(int(end.code or 0))
        raise
