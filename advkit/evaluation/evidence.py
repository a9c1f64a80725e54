"""The input of checks: the stages' measurements, and a few cheap measurements for checks alone."""

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
from advkit.evaluation.cascade import Cascade
from advkit.evaluation.check import Remedy
from advkit.evaluation.differences import Differences, agreement, differences
from advkit.evaluation.gradient_trace import GradientTrace, RecordingOracle, trace
from advkit.evaluation.result import Stage
from advkit.models.black_box import black_box
from advkit.models.bpda import obstacles
from advkit.models.inspect import ModelFacts
from advkit.models.model import Model

FEWEST, MOST = 16, 32
"""Images that a check uses; smaller batches are filled up to 16 rows anyway."""
SHARE = 2500
"""Passes of the attacks per image that a check uses, within these limits: all checks together spend about
100 passes per image, so a twentieth of the attacks' passes."""
STEPS = 10
"""Steps of the attacks that checks repeat."""
TOLERATED = 0.05
"""Share of the images whose gradient may vanish."""


class Evidence:
    """An evaluation after its last stage.

    Args:
        facts: properties of the model, determined before the attacks.
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
        self.box = black_box(model)
        """The black box that the model is."""
        self.robust = cascade.nearest_first(cascade.undecided.nonzero()[:, 0].tolist())
        """Rows of the data that are neither broken nor certified, those with the largest margin first."""
        self.gradient_stages = [
            stage
            for stage in stages
            if stage.attacked and not stage.transferred and ATTACKS.get(stage.attack).access == "gradients"
        ]
        """The stages that used gradients of the model itself."""
        self.last = next(
            (s for s in reversed(self.gradient_stages) if not ATTACKS.get(s.attack).single_image), None
        )
        """The last of these that can be repeated in a batch."""
        self.looked_at = min(max(cascade.passes // SHARE, FEWEST), MOST)
        """Largest number of images that a check uses."""
        self.searches: list[tuple[str, Attack[Any], list[Found]]] = []
        """(name, attack, outcomes) of every `search`, in order."""
        self._oracles: list[Oracle] = []

    def renewed(self) -> Evidence:
        """The same by the latest verdicts, with the passes spent so far."""
        latest = Evidence(self.cascade, self.model, self.stages, self.facts, self.attacks)
        latest._oracles = self._oracles
        return latest

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
        """Robust rows, evenly spaced from the largest margin to the smallest."""
        count = min(self.looked_at, len(self.robust))
        return [self.robust[round(i * (len(self.robust) - 1) / max(count - 1, 1))] for i in range(count)]

    @property
    def nearest(self) -> list[int]:
        """Robust rows with the largest margins."""
        return self.robust[: self.looked_at]

    @property
    def whole(self) -> Threat:
        """The threat model that allows every image in [0, 1]."""
        return Threat.whole("linf", math.prod(self.cascade.images.shape))

    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Rows]:
        """(images (R, C, H, W), untargeted rows) for direct queries."""
        index = torch.tensor(chosen)
        cascade = self.cascade
        x, label = cascade.images.batch(index, cascade.device)
        ids = cascade.images.ids[index].to(cascade.device)
        return x, Rows.untargeted(x, label, ids, ids)

    def oracle(
        self, threat: Threat | None = None, kind: type[Oracle] = Oracle, *, searched: bool = True
    ) -> Oracle:
        """An oracle on the module that the stages searched on, in float32; or on the model itself."""
        threat = threat or self.cascade.threat
        if searched:
            oracle = self.cascade.oracle(threat, "gradients", "float32", kind)
        else:
            oracle = kind(self.cascade.model, threat)
        self._oracles.append(oracle)
        return oracle

    def repeated(self, stage: Stage, threat: Threat | None = None, **changes: Any) -> Attack[Any]:
        """The attack of a stage with some parameters changed, if it has them."""
        kind = ATTACKS.get(stage.attack)
        known = {key: value for key, value in changes.items() if key in kind.Config.model_fields}
        return make(stage.attack, threat or self.cascade.threat, {**stage.parameters, **known})

    def shortened(self, stage: Stage, threat: Threat | None = None) -> Attack[Any]:
        """The attack of a stage with few steps, one start and one target."""
        steps = min(STEPS, stage.parameters.get("steps", STEPS))
        targets = int(bool(stage.parameters.get("targets")))
        return self.repeated(stage, threat, steps=steps, restarts=1, targets=targets)

    def search(self, name: str, attack: Attack[Any], chosen: Sequence[int]) -> list[Found]:
        """Outcomes of ``attack`` on the rows ``chosen``. Its random numbers follow from ``name``: that of the
        check, or the check's with a slash and more."""
        found: list[Found] = []
        oracle = self.oracle(attack.threat)
        search = self.cascade.searching(f"checks/{name}", attack, oracle)
        search.run(torch.tensor(chosen, dtype=torch.int64), found.append)
        # As in a stage, and not as it happened, which depends on how many rows were searched at once.
        oracle.forwards = sum(each.outcome.forwards for each in found)
        oracle.backwards = sum(each.outcome.backwards for each in found)
        found.sort(key=lambda each: chosen.index(each.index))
        self.searches.append((name, attack, found))
        return found

    @cached_property
    def trace(self) -> GradientTrace | None:
        """The gradient trace of robust images along the attack of a stage: the latest one with few vanishing
        gradients, else that with the fewest. None if no image is robust, or no stage can be traced."""
        best: GradientTrace | None = None
        for stage in reversed(self.gradient_stages) if self.robust else ():
            attack = self.shortened(stage)
            if attack.single_image:  # it asks as often as it likes, one row at a time
                continue
            search = self.cascade.searching("checks/walk", attack, self.oracle(kind=RecordingOracle))
            found = trace(stage, search, self.spread, STEPS)
            if found is None:
                continue
            if best is None or found.blind.sum() < best.blind.sum():
                best = found
            if int(best.blind.sum()) <= TOLERATED * len(best.blind):
                break
        return best

    @property
    def loss(self) -> AttackLoss:
        """The loss of the traced attack; the margin if it has no single loss."""
        return (self.trace and self.trace.loss) or margin

    @property
    def loss_name(self) -> str:
        """Its name in the registry."""
        return next((entry.name for entry in ATTACK_LOSSES if entry.thing is self.loss), "margin")

    @cached_property
    def cutting(self) -> list[str]:
        """Layers of the model that block the gradient, including those under BPDA."""
        x, rows = self.batch(self.spread[:FEWEST])
        self.oracle(searched=False).forwards += len(rows)  # the pass in which the layers are observed
        return obstacles(self.model, x)

    @cached_property
    def differences(self) -> Differences | None:
        """Whether the logits change as the gradient predicts; None if no image is robust."""
        if not self.robust:
            return None
        x, rows = self.batch(self.spread[:FEWEST])
        return differences(self.oracle(), x, rows, self.cascade.config.seed)

    @cached_property
    def agreement(self) -> Tensor:
        """Of gradients around the robust images with the largest margins (`differences.agreement`)."""
        x, rows = self.batch(self.nearest[:FEWEST])
        return agreement(self.oracle(), x, rows, self.cascade.config.seed)

    @property
    def saturated(self) -> bool:
        """Whether the gradient of the attack's loss vanishes although that of the margin does not."""
        path = self.trace
        if path is None or path.loss in (None, margin, logit_difference):
            return False
        dead, live = path.dead(path.clean) | path.blind, ~path.dead(path.margin_clean)
        return int((dead & live).sum()) > TOLERATED * len(dead)

    @property
    def remedy(self) -> Remedy:
        """What to do about ineffective attacks: BPDA for a layer, another loss, attacks without gradients, or
        stronger attacks."""
        seen, path = self.differences, self.trace
        if seen is not None and seen.cut and self.cutting:
            return Remedy("pass the layer straight through", f"--bpda {','.join(self.cutting)}")
        if self.saturated:
            return Remedy("use a loss that cannot saturate", "--attack cascade")
        blind = path is not None and int(path.blind.sum()) > TOLERATED * len(path.blind)
        if blind or (seen is not None and (seen.cut or seen.astray)):
            return self.without_gradients
        return self.harder

    @property
    def without_gradients(self) -> Remedy:
        """The remedy for misleading gradients."""
        if {"square", "autoattack"} & set(self.attacks):
            return Remedy(
                "try the adversarial images of an undefended copy (transfer), and more queries of square"
            )
        flags = f"--attack {self._after_cascade}square --set parameters.square.queries=20000"
        return Remedy("attack without gradients", flags)

    @property
    def harder(self) -> Remedy:
        """The remedy for attacks that have not converged."""
        if not {"cascade", "autoattack"} & set(self.attacks):
            flags = "--attack cascade"
        elif "autoattack" not in self.attacks:
            flags = f"--attack {self._after_cascade}autoattack"
        else:
            flags = "--attack autoattack --set parameters.autoattack.version=plus"
        return Remedy("attack harder", flags)

    @property
    def _after_cascade(self) -> str:
        """Other attacks alone may leave more images than ``cascade`` has left."""
        return "cascade," if "cascade" in self.attacks else ""
