"""Parameters keep the defaults and limits with which figures were published."""

from pathlib import Path

from advkit.training.objective import OBJECTIVES


def test_objectives(kept):
    kept(Path(__file__).with_name("defaults.txt"), {entry.name: entry.thing.Config for entry in OBJECTIVES})
