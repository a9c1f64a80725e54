"""Parameters keep the defaults and limits with which figures were published."""

from pathlib import Path

from advkit.gan.loss import GAN_LOSSES
from advkit.gan.regulariser import REGULARISERS, Schedule


def test_losses_and_regularisers(kept):
    configs = {entry.name: entry.thing.Config for entry in (*GAN_LOSSES, *REGULARISERS)}
    kept(Path(__file__).with_name("defaults.txt"), {"schedule": Schedule, **configs})
