"""Parameters keep the defaults and limits with which figures were published."""

from pathlib import Path

from advkit.commands import COMMANDS
from advkit.core.context import Context


def test_commands(kept):
    kept(Path(__file__).with_name("defaults.txt"), {name: COMMANDS[name].config for name in COMMANDS})
    assert not (Context().overwrite or Context().dry_run or Context().resume)
