"""Completion by the shell: what an option or argument may be, and the script that makes a shell ask.

The names come from the files and folders where things are, as in listings. PyTorch is not imported, so names
of plug-ins are left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)
from pydantic.fields import FieldInfo

from advkit.cli.described import Described
from advkit.core.config import OneOf, mark
from advkit.core.errors import UserError

Names = Callable[[], Iterable[str]]

KINDS = {
    "advkit.attacks.ensemble:names": ("attacks", "ensembles", "art-attacks"),
    "advkit.data.corruption:CORRUPTIONS": ("corruptions",),
    "advkit.data.dataset:DATASETS": ("data",),
    "advkit.defences.purifier:DEFENCES": ("defences",),
    "advkit.evaluation.check:CHECKS": ("checks",),
    "advkit.gan.loss:GAN_LOSSES": ("gan-losses",),
    "advkit.gan.metric:METRICS": ("gan-metrics",),
    "advkit.gan.regulariser:REGULARISERS": ("regularisers",),
    "advkit.models.network:ARCHITECTURES": ("architectures",),
    "advkit.models.network:generative": ("pairs", "vaes"),
    "advkit.models.network:pairs": ("pairs",),
    "advkit.training.objective:OBJECTIVES": ("objectives",),
}
"""Who knows a name, as `advkit.core.names` says it, and the kinds of `advkit ls` that list these names."""

MODELS = {"classifier", "detector", "discriminator", "generator", "model", "surrogate", "transfer"}
"""Fields that name models."""


class Words(click.ParamType):
    """What was typed, as it is: pydantic judges it, so that one message names all faults.

    Args:
        names: the values that the shell may complete to.
        files: whether it may also be the name of a file.
        several: whether it is a list, with commas.
    """

    name = "text"

    def __init__(self, names: Names = tuple, *, files: bool = False, several: bool = False) -> None:
        self.names, self.files, self.several = names, files, several

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Files, where they may be, and the names that begin like this."""
        before, comma, begun = incomplete.rpartition(",") if self.several else ("", "", incomplete)
        try:
            found = [f"{before}{comma}{name}" for name in self.names() if name.startswith(begun)]
        except (UserError, RuntimeError):  # a damaged store or no home, which a command reports better
            found = []
        files = [CompletionItem(incomplete, type="file")] if self.files else []
        return [*files, *map(CompletionItem, found)]


def of_field(name: str, field: FieldInfo, choices: tuple[str, ...], *, several: bool) -> Words:
    """The values of a configuration's field: its choices, or what it names."""
    if name == "runs":
        return Words(runs, files=True, several=several)
    if name in MODELS:
        return Words(models, files=True, several=several)
    known = mark(field, OneOf)
    names = of_kinds(*KINDS[known.place]) if known and known.place in KINDS else lambda: choices
    return Words(names, several=several)


def of_kinds(*kinds: str) -> Names:
    """The names of these kinds of things."""

    def names() -> Iterable[str]:
        from advkit.cli import ls

        for kind in kinds:
            if kind == "vaes":
                yield from (name for name in ls.names("architectures") if name.endswith("-vae"))
            else:
                yield from ls.names(kind)

    return names


def stored() -> list[str]:
    """Names in the model store."""
    from advkit.models.store import Store

    return list(Store().names())


def shipped_names() -> list[str]:
    """Names of the models that ship with advkit."""
    from advkit.models.shipped import PREFIX, SHIPPED

    return [PREFIX + name for name in SHIPPED]


def models() -> list[str]:
    """Names in the model store, of models that ship with advkit, and run folders."""
    return [*stored(), *shipped_names(), *runs()]


def runs() -> list[str]:
    """Run folders, the newest first."""
    from advkit.core.run_list import RUNS

    return sorted((folder.parent.as_posix() for folder in RUNS.glob("*/resolved.json")), reverse=True)


class RunPath(click.Path):
    """A path, which the shell may complete to a run folder."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Files and folders, and the runs in the usual place."""
        return Words(runs, files=True).shell_complete(ctx, param, incomplete)


class Bash(BashComplete):
    """As click completes in bash, but with names beside files, and with names that hold a colon."""

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' line=${COMP_LINE:0:COMP_POINT} type value
    local word=${line##*[ =]}
    while IFS=, read -r type value; do
        case $type in
            file) compopt -o filenames; COMPREPLY+=($(compgen -f -- "$word")) ;;
            dir) compopt -o filenames; COMPREPLY+=($(compgen -d -- "$word")) ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_WORDS=$line %(complete_var)s=bash_complete "$1")
    if [[ $COMP_WORDBREAKS == *:* && $word == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%%"${word##*:}"}"}")
    fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The line up to the cursor, apart from the program's name and from what is not yet complete."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        return (words, "") if line.endswith(" ") or not words else (words[:-1], words[-1])


add_completion_class(Bash)


@click.command(
    "completion",
    cls=Described,
    example="advkit completion bash\nadvkit completion zsh\nadvkit completion fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options and their values.

    bash: add the line eval "$(advkit completion bash)" to ~/.bashrc; zsh: the same with zsh to ~/.zshrc;
    fish: write it to ~/.config/fish/completions/advkit.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "advkit", "_ADVKIT_COMPLETE").source()
    click.echo(script, nl=False)
