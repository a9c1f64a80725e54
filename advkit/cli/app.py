"""The command line: what there is, by name. The code of a command is imported when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

import advkit
from advkit.cli import faults, options
from advkit.cli.described import DescribedGroup
from advkit.commands import COMMANDS
from advkit.core import distributed
from advkit.core.named import at


class Lazy(NamedTuple):
    """A command that measures and trains nothing: it lists, copies, removes."""

    group: str
    summary: str
    at: str
    """``module:name`` of its `click.Command`."""


HOUSEKEEPING = {
    "ls": Lazy("Begin here", "list what there is: data, architectures, attacks, recipes", "advkit.cli.ls:ls"),
    "run": Lazy("Recipes", "run a recipe", "advkit.cli.recipe:run"),
    "cp": Lazy("Recipes", "copy a recipe to edit it", "advkit.cli.recipe:cp"),
    "validate": Lazy("Recipes", "say all that is wrong with a recipe", "advkit.cli.recipe:validate"),
    "models": Lazy(
        "Models and data", "the model store: list, show, export, import, remove", "advkit.cli.models:models"
    ),
    "data": Lazy("Models and data", "the data sets: list and download", "advkit.cli.data:data"),
}

OVERVIEW = """\
advkit {version}: train GANs, attack classifiers, harden them, and report numbers one can trust.

Three commands to try now; none of them downloads anything:

  advkit quickstart      the whole job on real digits, in a few minutes, on a CPU
  advkit gan-train       train a GAN on the bundled digits and look at what it draws
  advkit ls recipes      experiments that are ready to run

advkit --help lists all commands.
"""


class App(DescribedGroup):
    """The root: those of `advkit.commands`, and the housekeeping."""

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
        """By group, from the summaries alone."""
        for group, commands in sections():
            with formatter.section(group):
                formatter.write_dl(list(commands.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> Any:
        """Runs the command line and exits with a code of `advkit.cli.faults`."""
        if "_ADVKIT_COMPLETE" in os.environ:  # the shell asks what it could complete to
            return super().main(args, "advkit")
        words = list(sys.argv[1:] if args is None else args)

        def work() -> None:
            with self.make_context("advkit", list(words), obj=words) as context:
                self.invoke(context)

        code = faults.guard(work)
        if distributed.launched():
            distributed.leave(code)
        sys.exit(code)


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
    example="advkit quickstart\nadvkit gan-train --data digits --steps 2000\nadvkit attack --model clf.pt",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(advkit.__version__, message="advkit %(version)s")
@click.pass_context
def app(context: click.Context) -> None:
    """Adversarial robustness: train GANs, reuse them, attack classifiers, harden them.

    Exit codes: 0 done, 1 a bar that you set was missed, 2 something that you can mend, 70 a mistake in
    advkit, 130 interrupted.
    """
    if context.invoked_subcommand is None:
        click.echo(OVERVIEW.format(version=advkit.__version__), nl=False)


def main() -> None:
    """Entry point of the ``advkit`` command."""
    app.main()
