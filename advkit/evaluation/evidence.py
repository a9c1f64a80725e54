"""What checks may look at: what the stages measured, and a few cheap questions of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from advkit.attacks.attack import ATTACKS, Attack, Rows
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.outcome import Found
from advkit.attacks.loss import ATTACK_LOSSES, AttackLoss
from advkit.attacks.losses.logit_difference import logit_difference
from advkit.attacks.losses.margin import margin
from advkit.attacks.perturb import make
from advkit.core.threat import Threat
from advkit.evaluation import walk
from advkit.evaluation.cascade import Cascade
from advkit.evaluation.check import Remedy
from advkit.evaluation.differences import Differences, differences
from advkit.evaluation.result import Stage
from advkit.models.inspect import ModelFacts
from advkit.models.model import Model
from advkit.models.obstacles import obstacles

FEWEST, MOST = 16, 32
"""Images that a check looks at; passes are filled up to 16 rows anyway."""
SHARE = 2500
"""Passes of the attacks for each image that a check looks at, between these: the checks together spend
about 100 passes on one, so a twentieth of what was spent on attacking."""
STEPS = 10
"""Steps of the attacks that checks repeat."""
TOLERATED = 0.05
"""Share of the images whose gradient may be dead."""


class Evidence:
    """An evaluation whose stages are over.

    Args:
        cascade: the evaluation.
        model: what is evaluated.
        stages: what came of each stage.
        facts: what was found of the model before it was attacked.
        attacks: what the user asked for.
    """

    def __init__(
        self,
        cascade: Cascade,
        model: Model,
        stages: Sequence[Stage],
        facts: ModelFacts,
        attacks: Sequence[str],
    ) -> None:
        self.cascade, self.model, self.stages = cascade, model, stages
        self.facts, self.attacks = facts, attacks
        self.standing = cascade.nearest_first(cascade.undecided.nonzero()[:, 0].tolist())
        """Rows of the data that no stage broke and no proof decided, those nearest to falling first."""
        self.gradient_stages = [
            stage
            for stage in stages
            if stage.attacked and not stage.transferred and ATTACKS.get(stage.attack).access == "gradients"
        ]
        """Those that saw the gradients of the model itself."""
        self.last = next(
            (s for s in reversed(self.gradient_stages) if not ATTACKS.get(s.attack).single_image), None
        )
        """The last of these that can be repeated in a batch."""
        self.looked_at = min(max(cascade.passes // SHARE, FEWEST), MOST)
        """Images that a check looks at, as far as there are so many."""
        self._oracles: list[Oracle] = []

    @property
    def forwards(self) -> int:
        """Passes that the checks have spent."""
        return sum(oracle.forwards for oracle in self._oracles)

    @property
    def backwards(self) -> int:
        """Passes that the checks have spent."""
        return sum(oracle.backwards for oracle in self._oracles)

    @cached_property
    def spread(self) -> list[int]:
        """Standing rows from the nearest to falling to the farthest, evenly."""
        count = min(self.looked_at, len(self.standing))
        return [self.standing[round(i * (len(self.standing) - 1) / max(count - 1, 1))] for i in range(count)]

    @property
    def nearest(self) -> list[int]:
        """Standing rows that came nearest to falling."""
        return self.standing[: self.looked_at]

    @property
    def whole(self) -> Threat:
        """No budget but the box."""
        return Threat.whole("linf", math.prod(self.cascade.images.shape))

    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Rows]:
        """(images (R, C, H, W), untargeted rows) for direct questions."""
        index = torch.tensor(chosen)
        cascade = self.cascade
        x, label = cascade.images.batch(index, cascade.device)
        ids = cascade.images.ids[index].to(cascade.device)
        return x, Rows.untargeted(x, label, ids, ids)

    def oracle(
        self, threat: Threat | None = None, kind: type[Oracle] = Oracle, *, searched: bool = True
    ) -> Oracle:
        """A door to what the stages searched on, in float32; or to the model itself."""
        threat = threat or self.cascade.threat
        if searched:
            oracle = self.cascade.oracle(threat, "gradients", "float32", kind)
        else:
            oracle = kind(self.cascade.model, threat)
        self._oracles.append(oracle)
        return oracle

    def repeated(self, stage: Stage, threat: Threat | None = None, **changes: Any) -> Attack[Any]:
        """The attack of a stage with some parameters changed, as far as it has them."""
        kind = ATTACKS.get(stage.attack)
        known = {key: value for key, value in changes.items() if key in kind.Config.model_fields}
        return make(stage.attack, threat or self.cascade.threat, {**stage.parameters, **known})

    def shortened(self, stage: Stage, threat: Threat | None = None) -> Attack[Any]:
        """The attack of a stage with few steps, one start and one target."""
        steps = min(STEPS, stage.parameters.get("steps", STEPS))
        targets = min(1, stage.parameters.get("targets", 1))
        return self.repeated(stage, threat, steps=steps, restarts=1, targets=targets)

    def search(self, name: str, attack: Attack[Any], chosen: Sequence[int]) -> list[Found]:
        """What becomes of the rows ``chosen`` under ``attack``; its random numbers follow from ``name``."""
        found: list[Found] = []
        search = self.cascade.searching(f"checks/{name}", attack, self.oracle(attack.threat))
        search.run(torch.tensor(chosen, dtype=torch.int64), found.append)
        return sorted(found, key=lambda each: chosen.index(each.index))

    @cached_property
    def walk(self) -> walk.Walk | None:
        """How standing images fare along the attack of a stage: the one whose gradients are most alive, the
        latest first. None where nothing stands, or no stage can be followed."""
        best: walk.Walk | None = None
        for stage in reversed(self.gradient_stages) if self.standing else ():
            attack = self.shortened(stage)
            if attack.single_image:  # it asks as often as it likes, one row at a time
                continue
            search = self.cascade.searching("checks/walk", attack, self.oracle(kind=walk.Watcher))
            found = walk.along(stage, search, self.spread, STEPS)
            if found is None:
                continue
            if best is None or found.blind.sum() < best.blind.sum():
                best = found
            if int(best.blind.sum()) <= TOLERATED * len(best.blind):
                break
        return best

    @property
    def loss(self) -> AttackLoss:
        """What the attack of `walk` climbs; the margin where it climbs nothing by name."""
        return (self.walk and self.walk.loss) or margin

    @property
    def loss_name(self) -> str:
        """Its name in the registry."""
        return next((entry.name for entry in ATTACK_LOSSES if entry.thing is self.loss), "margin")

    @cached_property
    def cutting(self) -> list[str]:
        """Layers of the model that let no gradient through, also those that the search passes through."""
        x, rows = self.batch(self.spread[:FEWEST])
        self.oracle(searched=False).forwards += len(rows)  # the pass in which the layers are seen
        return obstacles(self.model, x)

    @cached_property
    def differences(self) -> Differences | None:
        """Whether the answers change as the gradient says; None where nothing stands."""
        if not self.standing:
            return None
        x, rows = self.batch(self.spread[:FEWEST])
        return differences(self.oracle(), x, rows, self.cascade.seed)

    @property
    def saturated(self) -> bool:
        """The loss that is climbed is flat where the model is not."""
        walk = self.walk
        if walk is None or walk.loss in (None, margin, logit_difference):
            return False
        dead, live = walk.dead(walk.clean) | walk.blind, ~walk.dead(walk.margin_clean)
        return int((dead & live).sum()) > TOLERATED * len(dead)

    @property
    def remedy(self) -> Remedy:
        """What to do about attacks that found too little: a better loss, round what hides the gradient, or
        harder."""
        seen, walk = self.differences, self.walk
        if seen is not None and seen.cut and self.cutting:
            return Remedy("pass the layer straight through", f"--bpda {','.join(self.cutting)}")
        if self.saturated:
            return Remedy("climb a loss that cannot saturate", "--attack cascade")
        blind = walk is not None and int(walk.blind.sum()) > TOLERATED * len(walk.blind)
        if blind or (seen is not None and (seen.cut or seen.astray)):
            return self.without_gradients
        return self.harder

    @property
    def without_gradients(self) -> Remedy:
        """The remedy for gradients that lead nowhere."""
        if {"square", "autoattack"} & set(self.attacks):
            return Remedy(
                "try the adversarial images of an undefended copy (transfer), and more queries of square"
            )
        return Remedy("attack without gradients", "--attack square --set parameters.square.queries=20000")

    @property
    def harder(self) -> Remedy:
        """The remedy for attacks that have not converged."""
        if not {"cascade", "autoattack"} & set(self.attacks):
            flags = "--attack cascade"
        elif "autoattack" not in self.attacks:
            flags = "--attack autoattack"
        else:
            flags = "--attack autoattack --set parameters.autoattack.version=plus"
        return Remedy("attack harder", flags)
