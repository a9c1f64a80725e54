"""``advgan:NAME``: a trained network makes the adversarial image, in one pass (Xiao et al., IJCAI 2018).

NAME is a perturbation generator: a name in the model store, a file or a run folder (``advkit advgan-train``
trains one). The attack does not query the attacked model; the generator's card names the model that it was
trained against.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from advkit.attacks.attack import ATTACKS, Attack, Rows, State
from advkit.attacks.engine.oracle import Oracle, query
from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError, DataError, by_size
from advkit.core.registry import Entry
from advkit.core.threat import Norm, Threat
from advkit.models.load import load_model
from advkit.models.model import Model

NORMS: tuple[Norm, ...] = ("linf", "l2")
"""Norms in which a direction determines the change."""


def moved(threat: Threat, x: Tensor, direction: Tensor) -> Tensor:
    """The images ``x`` moved along ``direction`` by the whole budget, differentiable with respect to it.

    linf: each value moves by its direction times eps; l2: the direction is brought to the length eps.

    Args:
        threat: norm and budget; all results are inside it.
        x: (N, C, H, W) in [0, 1].
        direction: (N, C, H, W) in [-1, 1].
    """
    if threat.norm == "linf":
        return threat.project(x + threat.eps * direction, x)
    there = x + threat.eps * threat.ascent(direction)
    return there.clamp(0, 1)  # as `Threat.project` at this length, but with a gradient


class AdvGan(Attack[State]):
    """One pass of a perturbation generator."""

    norms = NORMS
    access = "none"
    steps = 1
    network_name: str

    def __init__(self, config: StrictModel, threat: Threat) -> None:
        super().__init__(config, threat)
        self._network = opened(self.network_name, threat.norm)

    @property
    def artifact_hash(self) -> str:
        """Hash of the generator."""
        return self._network.hash

    def start(self, rows: Rows) -> State:
        """The originals.

        Raises:
            DataError: images of another shape than the generator's.
        """
        shape = tuple(rows.x0.shape[1:])
        if shape != self._network.card.shape:
            theirs, ours = map(by_size, (self._network.card.shape, shape))
            raise DataError(
                f"the generator of advgan:{self.network_name} takes {theirs} images but these are {ours} "
                "(channels x height x width); train one on such images with advkit advgan-train"
            )
        self._network.to(rows.x0.device)
        return State(rows, rows.x0, rows.label.new_zeros(len(rows)))

    def step(self, state: State, oracle: Oracle) -> State:
        """The adversarial images; they are evaluated as their rows end."""
        x0 = state.rows.x0
        with torch.no_grad():
            return State(state.rows, moved(self.threat, x0, query(self._network, x0)), state.iteration)


def opened(name: str, norm: Norm) -> Model:
    """The perturbation generator called ``name``, on the CPU.

    Raises:
        ModelError: there is none, or the model has another role.
        ConfigError: it was trained in another norm.
    """
    model = load_model(name, role="perturbation-generator", device="cpu")
    trained = model.card.threat
    if trained is not None and trained.norm != norm:
        raise ConfigError(
            f"the generator of advgan:{name} was trained in {trained.norm}, not in {norm}; use "
            f"--norm {trained.norm}, or train another"
        )
    return model


@cache
def _class(name: str) -> type[AdvGan]:
    return type(f"advgan:{name}", (AdvGan,), {"__doc__": AdvGan.__doc__, "network_name": name})


@ATTACKS.family("advgan")
def entry(name: str) -> Entry[type[Attack[Any]]]:
    """The attack of the perturbation generator called ``name``, which is loaded when the attack is created.

    Raises:
        ConfigError: no name.
    """
    if not name:
        raise ConfigError("advgan: needs the name of a perturbation generator after the colon (advgan:NAME)")
    summary = f"one pass of the perturbation generator {name}"
    return Entry(f"advgan:{name}", _class(name), summary, "Xiao et al., IJCAI 2018")
