"""The optimiser of classifiers: groups of parameters by learning rate and decay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from advkit.core.errors import ConfigError
from advkit.training.settings import Fitting


def optimiser(
    model: nn.Module, config: Fitting, rates: Mapping[str, float], *, fused: bool
) -> torch.optim.Optimizer:
    """One group for each pair of rate factor and decay, with its ``factor``.

    Args:
        model: whose parameters, those that need a gradient.
        config: which optimiser, rate and decay.
        rates: factors of the rate for parameters whose names begin so; the first that fits counts.
        fused: all in one kernel.

    Raises:
        ConfigError: there is nothing to train.
    """
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next((rates[start] for start in rates if name.startswith(start)), 1.0)
            decay = config.weight_decay if parameter.dim() > 1 else 0.0
            members.setdefault((rate, decay), []).append(parameter)
    if not members:
        raise ConfigError("the model has no parameters to train: all of them are frozen; unfreeze some")
    groups = [
        {"params": parameters, "factor": rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, config.rate, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, config.rate, fused=fused)
