"""Parameters keep the defaults and limits with which figures were published."""

from pathlib import Path

from advkit.attacks.attack import ATTACKS
from advkit.attacks.ensemble import ENSEMBLES


def test_attacks_and_ensembles(kept):
    own = [entry for entry in (*ATTACKS, *ENSEMBLES) if ":" not in entry.name]
    kept(Path(__file__).with_name("defaults.txt"), {entry.name: entry.thing.Config for entry in own})
