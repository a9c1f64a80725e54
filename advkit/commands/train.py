"""Train a classifier on clean images."""

from __future__ import annotations

from advkit.commands.adv_train import trained
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.report.outcome import Outcome
from advkit.training.objective import OBJECTIVES
from advkit.training.settings import AdversarialTraining
from advkit.training.settings import OrdinaryTraining as Config

GROUP = "Classifiers"
EXAMPLE = "advkit train --data digits --arch lenet --out clf.pt"
DISTRIBUTED = True


def run(config: Config, context: Context) -> Outcome:
    """Trains a classifier."""
    if OBJECTIVES.get(config.objective).needs_threat:
        raise ConfigError(f"objective {config.objective!r} needs a threat model; use advkit adv-train")
    said = config.model_dump(exclude_unset=True) | {"objective": config.objective}
    return trained(AdversarialTraining(**said), context, "train")
