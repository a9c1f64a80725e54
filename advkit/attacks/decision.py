"""Decision-based attacks."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from advkit.attacks.attack import Attack, Rows, State, attack
from advkit.attacks.engine.oracle import Oracle
from advkit.attacks.engine.record import column
from advkit.core import rng
from advkit.core.config import StrictModel
from advkit.core.threat import Norm

SEEK, CLOSE = 0, 1
"""Phases: random images until one is a success; binary search between the original and a success. Higher
numbers belong to each attack."""

GRAINS = 4
"""Random images have blocks of 1, 2, 4 and 8 pixels across, in turn: coarse noise often succeeds where fine
noise does not."""


@dataclass
class DecisionState(State):
    """The segment from the original to a success, which crosses the boundary."""

    phase: Tensor
    """(R,) the purpose of the query at ``x``."""
    far: Tensor
    """(R, C, H, W) a success."""
    low: Tensor
    """(R,) largest share of the way to it without success."""
    high: Tensor
    """(R,) smallest share with success."""


D = TypeVar("D", bound=DecisionState)


class DecisionAttack(Attack[D]):
    """Searches a success and the boundary; each attack continues from there."""

    access = "decisions"
    minimal = True
    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")
    closeness: ClassVar[float]
    """Width at which the binary search ends, as a share of the way, times the root of the image's size."""

    @property
    def steps(self) -> int:
        """The last query confirms what was found."""
        return int(self.config.queries) - 1  # type: ignore[attr-defined]

    def started(self, rows: Rows) -> dict[str, Any]:
        """The fields of `DecisionState` at the start: a random image."""
        zero = torch.zeros_like(rows.label)
        return {
            "rows": rows,
            "x": random_image(rows, zero),
            "iteration": zero,
            "phase": zero,
            "far": rows.x0.clone(),
            "low": torch.zeros_like(rows.x0[:, 0, 0, 0]),
            "high": torch.ones_like(rows.x0[:, 0, 0, 0]),
        }

    def step(self, state: D, oracle: Oracle) -> D:
        """One query of each row, and the resulting move."""
        rows = state.rows
        predicted = oracle.decisions(state.x)
        hit = predicted != rows.label if rows.target_class is None else predicted == rows.target_class
        closing, middle = state.phase == CLOSE, (state.low + state.high) / 2
        state.put(closing & hit, high=middle)
        state.put(closing & ~hit, low=middle)
        self.close(state, (state.phase == SEEK) & hit, state.x)
        left = self.closeness / math.sqrt(rows.x0[0].numel())
        arrived = closing & (state.high - state.low <= left)
        self.move(state, hit, arrived)
        seeking = state.phase == SEEK
        if any_row(seeking):
            state.put(seeking, x=random_image(rows, state.iteration + 1))
        closing = state.phase == CLOSE
        if any_row(closing):
            state.put(closing, x=self.between(state, (state.low + state.high) / 2))
        return state

    @abstractmethod
    def move(self, state: D, hit: Tensor, arrived: Tensor) -> None:
        """Moves the rows in other phases than those of this module, and those that have just arrived.

        Args:
            state: changed in place: rows that leave the phase CLOSE need a phase and the next ``x``.
            hit: (R,) bool: ``x`` was a success.
            arrived: (R,) bool: the binary search has ended; the boundary is just below ``high``.
        """

    def close(self, state: D, chosen: Tensor, far: Tensor) -> None:
        """Starts the binary search of the rows ``chosen``, toward the successes ``far``."""
        state.put(chosen, far=far, low=0.0, high=1.0, phase=CLOSE)

    def between(self, state: D, share: Tensor) -> Tensor:
        """(R, C, H, W) the points at this share of the way to ``far``, by distance."""
        x0, change = state.rows.x0, state.far - state.rows.x0
        if self.threat.norm == "linf":
            reach = column(share * change.flatten(1).abs().amax(1), change)
            return x0 + change.clamp(-reach, reach)
        return x0 + column(share, change) * change


def random_image(rows: Rows, number: Tensor) -> Tensor:
    """(R, C, H, W) uniform noise: image ``number`` of each row; its blocks grow with the number."""
    shape = rows.x0.shape[1:]
    fine = rng.uniform(rng.step(rows.key, number), shape)
    image, grain = fine, number % GRAINS
    for power in range(1, GRAINS):
        rough = fine[:, :, : math.ceil(shape[1] / 2**power), : math.ceil(shape[2] / 2**power)]
        coarse = interpolate(rough, scale_factor=2**power)[:, :, : shape[1], : shape[2]]
        image = torch.where(column(grain == power, image), coarse, image)
    return image


def any_row(chosen: Tensor) -> bool:
    """Whether any row is ``chosen``; always true where the test would synchronise with the device."""
    return chosen.device.type != "cpu" or bool(chosen.any())


PROBE, JUMP = 2, 3
"""Phases: probes around a point on the boundary; a jump along the estimated normal."""


@dataclass
class ProbingState(DecisionState):
    """The boundary point of each row, and the results of its probes."""

    edge: Tensor
    """(R, C, H, W) a success close to the boundary."""
    sum: Tensor
    """(R, C, H, W) sum of the probes of this round, relative to ``edge``."""
    signed: Tensor
    """(R, C, H, W) sum of the successful ones minus that of the others."""
    hits: Tensor
    """(R,) successes minus failures."""
    asked: Tensor
    """(R,) probes of this round."""
    round: Tensor
    """(R,) rounds, this one included."""
    normal: Tensor
    """(R, C, H, W) direction toward successes."""
    reach: Tensor
    """(R,) length of the next jump."""


P = TypeVar("P", bound=ProbingState)


class ProbingAttack(DecisionAttack[P]):
    """In every round: binary search to the boundary, probes around it, a jump along the normal."""

    spread: ClassVar[float]
    """Length of a probe as a share of the distance from the original."""

    def started(self, rows: Rows) -> dict[str, Any]:
        """The fields of `ProbingState` at the start: a random image."""
        fields, zero = super().started(rows), torch.zeros_like(rows.x0)
        count = torch.zeros_like(rows.label)
        return fields | {
            "edge": rows.x0.clone(),
            "sum": zero,
            "signed": zero.clone(),
            "hits": count,
            "asked": count,
            "round": count,
            "normal": zero.clone(),
            "reach": torch.zeros_like(fields["low"]),
        }

    def move(self, state: P, hit: Tensor, arrived: Tensor) -> None:
        """Probes, and the jumps that follow."""
        jumping, probing = state.phase == JUMP, state.phase == PROBE
        self._record_answers(state, hit, probing)
        self.jump(state, hit, jumping)
        arrived = self.arrive(state, arrived)
        state.put(arrived, edge=self.between(state, state.high))
        self.probe(state, arrived)
        ready = probing & (state.asked >= self.probes(state.round))
        if any_row(ready):
            self._estimate(state, ready)
            state.put(ready, phase=JUMP)
            self.prepare_jump(state, ready)
        probing = state.phase == PROBE
        if any_row(probing):
            noise = self.noise(rng.step(state.rows.key, state.iteration + 1), state.edge)
            length = self.spread * (state.edge - state.rows.x0).flatten(1).norm(dim=1)
            state.put(probing, x=self.placed(state, state.edge + column(length, noise) * noise).clamp_(0, 1))

    def probe(self, state: P, chosen: Tensor) -> None:
        """Starts a round of probes at ``edge``."""
        kept = column(~chosen, state.sum)
        state.sum, state.signed = state.sum * kept, state.signed * kept
        state.hits, state.asked = state.hits * ~chosen, state.asked * ~chosen
        state.round = state.round + chosen
        state.put(chosen, phase=PROBE)

    def _record_answers(self, state: P, hit: Tensor, probing: Tensor) -> None:
        sign = (2 * hit.int() - 1) * probing
        offset = state.x - state.edge
        state.sum = state.sum + column(probing, offset) * offset
        state.signed = state.signed + column(sign, offset) * offset
        state.hits, state.asked = state.hits + sign, state.asked + probing

    def _estimate(self, state: P, ready: Tensor) -> None:
        """The mean of the successful probes minus that of the others, normalised."""
        share = state.hits / state.asked.clamp(min=1)
        share = torch.where(share.abs() == 1, 0.0, share)  # where all agree, use their mean
        normal = state.signed - column(share, state.sum) * state.sum
        state.put(ready, normal=normal / column(normal.flatten(1).norm(dim=1).clamp(min=1e-12), normal))

    @abstractmethod
    def probes(self, number: Tensor) -> Tensor:
        """(R,) probes of round ``number`` (R,), from 1."""

    @abstractmethod
    def noise(self, key: Tensor, like: Tensor) -> Tensor:
        """(R, C, H, W) random directions of length 1."""

    @abstractmethod
    def prepare_jump(self, state: P, ready: Tensor) -> None:
        """Sets ``x`` and ``reach`` of the first jump along ``normal``."""

    @abstractmethod
    def jump(self, state: P, hit: Tensor, jumping: Tensor) -> None:
        """The move after a jump: a binary search, another jump, or another round."""

    def placed(self, state: P, x: Tensor) -> Tensor:
        """(R, C, H, W) the probes to query, from the points ``x`` that noise leads to."""
        return x

    def arrive(self, state: P, arrived: Tensor) -> Tensor:
        """(R,) bool: of the rows that have arrived at the boundary, those that start a round now."""
        return arrived


ASIDE, TOWARD = 2, 3
"""Phases: a step along the sphere around the original; a step from there toward the original."""

RATE = 0.1
"""Adaptation rate of the step lengths to the success rates."""


@dataclass
class BoundaryState(DecisionState):
    """The point of the walk and its step lengths."""

    edge: Tensor
    """(R, C, H, W) the point of the walk, a success."""
    aside: Tensor
    """(R,) length of a step along the sphere, as a share of the distance from the original."""
    toward: Tensor
    """(R,) length of a step toward the original, as the above."""


@attack(
    "boundary",
    summary="decisions only: a random walk along the boundary toward the original",
    source="Brendel et al. 2018",
)
class BoundaryAttack(DecisionAttack[BoundaryState]):
    """Brendel, Rauber and Bethge, ICLR 2018, from a start on the boundary.

    After every query, the step lengths adapt to the paper's target success rates: a half along the sphere and
    a quarter toward the original.
    """

    class Config(StrictModel):
        queries: int = Field(5000, ge=2)
        """Queries, the confirming one included."""
        aside: float = Field(0.1, gt=0)
        """First step along the sphere, as a share of the distance from the original."""
        toward: float = Field(0.1, gt=0, lt=1)
        """First step toward the original, as the above."""

    config: Config
    norms = ("l2",)
    closeness = 0.01

    def start(self, rows: Rows) -> BoundaryState:
        """A random image."""
        fields = self.started(rows)
        aside, toward = (torch.full_like(fields["low"], f) for f in (self.config.aside, self.config.toward))
        return BoundaryState(**fields, edge=rows.x0.clone(), aside=aside, toward=toward)

    def move(self, state: BoundaryState, hit: Tensor, arrived: Tensor) -> None:
        """Along the sphere until that succeeds, then once toward the original."""
        aside, toward = state.phase == ASIDE, state.phase == TOWARD
        pull = RATE * (hit.float() - 0.5 * aside.float() - 0.25 * toward.float())
        state.aside = torch.where(aside, state.aside * pull.exp(), state.aside).clamp(max=1)
        state.toward = torch.where(toward, state.toward * pull.exp(), state.toward).clamp(max=0.5)
        state.put(toward & hit, edge=state.x)
        state.put(arrived, edge=self.between(state, state.high))
        nearer = aside & hit
        x0 = state.rows.x0
        state.put(nearer, x=x0 + column(1 - state.toward, x0) * (state.x - x0))
        again = (aside & ~hit) | toward | arrived
        state.put(again, phase=ASIDE)
        state.put(nearer, phase=TOWARD)
        if any_row(again):
            state.put(again, x=self._nearby_on_sphere(state))

    def _nearby_on_sphere(self, state: BoundaryState) -> Tensor:
        """Random points near ``edge`` on the sphere through it around the original."""
        way = state.edge - state.rows.x0
        radius = way.flatten(1).norm(dim=1).clamp(min=1e-12)
        noise = rng.normal(rng.step(state.rows.key, state.iteration + 1), way.shape[1:])
        along = (noise * way).flatten(1).sum(1) / radius.square()
        noise -= column(along, way) * way
        noise *= column(state.aside * radius / noise.flatten(1).norm(dim=1).clamp(min=1e-12), noise)
        turned = way + noise
        return (state.rows.x0 + turned / column((1 + state.aside.square()).sqrt(), way)).clamp(0, 1)


GROWTH = 0.6 ** (-2 / 3)
"""Factor of queries from round to round (the paper's lambda is 0.6)."""

FARTHER = 1.2
"""Factor of the distance along the normal after a failure."""

TRIES = 8
"""Failures along one normal before the boundary is probed again."""


def waves(size: int, count: int, like: Tensor) -> Tensor:
    """(size, count) the cosines of lowest frequency, orthonormal: the first columns of the DCT."""
    place = torch.arange(size, device=like.device, dtype=like.dtype)[:, None] + 0.5
    number = torch.arange(min(count, size), device=like.device, dtype=like.dtype)
    basis = torch.cos(math.pi * place * number / size)
    unit: Tensor = basis / basis.norm(dim=0)
    return unit


@attack(
    "geoda",
    summary="decisions only: from the original along the boundary's normal, estimated at low frequencies",
    source="Rahmati et al. 2020",
)
class GeoDA(ProbingAttack[ProbingState]):
    """Rahmati, Moosavi-Dezfooli, Frossard and Dai, CVPR 2020, algorithm 1, one query at a time."""

    class Config(StrictModel):
        queries: int = Field(1000, ge=2)
        """Queries, the confirming one included."""
        probes: int = Field(30, ge=1)
        """Queries of the first estimate of the normal; each later one takes 1.4 times as many."""
        waves: int = Field(10, ge=1)
        """Frequencies along each side of the image in which the normal is estimated."""

    config: Config
    closeness = 0.01
    spread = 0.01

    def start(self, rows: Rows) -> ProbingState:
        """A random image."""
        return ProbingState(**self.started(rows))

    def probes(self, number: Tensor) -> Tensor:
        """Growing from round to round."""
        return (self.config.probes * GROWTH ** (number - 1)).floor()

    def noise(self, key: Tensor, like: Tensor) -> Tensor:
        """Random mixtures of low frequencies."""
        channels, height, width = like.shape[1:]
        down, across = (waves(side, self.config.waves, like) for side in (height, width))
        weights = rng.normal(key, (channels, down.shape[1], across.shape[1]))
        noise = (down @ weights @ across.T).contiguous()
        return noise.div_(column(noise.flatten(1).norm(dim=1), noise))

    def prepare_jump(self, state: ProbingState, ready: Tensor) -> None:
        """As far as the boundary point is: on a flat boundary, that suffices."""
        state.put(ready, reach=self.threat.distance(state.edge, state.rows.x0))
        self._query_at_reach(state, ready)

    def jump(self, state: ProbingState, hit: Tensor, jumping: Tensor) -> None:
        """Farther after a failure; from a success, a binary search toward the original."""
        if not any_row(jumping):
            return
        self.close(state, jumping & hit, state.x)
        state.put(jumping & ~hit, reach=state.reach * FARTHER)
        start = self.threat.distance(state.edge, state.rows.x0)
        lost = state.reach > start * FARTHER ** (TRIES - 0.5)
        self.probe(state, jumping & ~hit & lost)
        self._query_at_reach(state, jumping & ~hit & ~lost)

    def _query_at_reach(self, state: ProbingState, chosen: Tensor) -> None:
        x0 = state.rows.x0
        ahead = x0 + column(state.reach, x0) * self.threat.ascent(state.normal)
        state.put(chosen, x=ahead.clamp(0, 1))


SHORTEST_JUMP = 2.0**-12
"""A jump shorter than this share of the distance from the original ends; the boundary is probed again."""


@attack(
    "hop-skip-jump",
    summary="decisions only: estimates the boundary's normal, jumps along it, searches the boundary again",
    source="Chen et al. 2020",
    aliases=("hsja",),
)
class HopSkipJump(ProbingAttack[ProbingState]):
    """Chen, Jordan and Wainwright, IEEE S&P 2020, algorithm 2, one query at a time."""

    class Config(StrictModel):
        queries: int = Field(1000, ge=2)
        """Queries, the confirming one included."""
        probes: int = Field(50, ge=1)
        """Queries of the first estimate of the normal; the t-th takes sqrt(t) times as many. The paper has
        100; with few queries, more and shorter rounds find nearer successes."""

    config: Config
    closeness = 0.01
    spread = 0.01

    def start(self, rows: Rows) -> ProbingState:
        """A random image."""
        return ProbingState(**self.started(rows))

    def probes(self, number: Tensor) -> Tensor:
        """Proportional to the root of the round's number."""
        return (self.config.probes * number.sqrt()).floor()

    def noise(self, key: Tensor, like: Tensor) -> Tensor:
        """Of the sphere; in linf of the cube, as in the paper."""
        if self.threat.norm == "linf":
            noise = rng.uniform(key, like.shape[1:]).mul_(2).sub_(1)
        else:
            noise = rng.normal(key, like.shape[1:])
        return noise.div_(column(noise.flatten(1).norm(dim=1), noise))

    def prepare_jump(self, state: ProbingState, ready: Tensor) -> None:
        """The distance of the original, divided by the root of the round's number."""
        reach = self.threat.distance(state.edge, state.rows.x0) / state.round.clamp(min=1).sqrt()
        state.put(ready, reach=reach)
        self._jump(state, ready)

    def jump(self, state: ProbingState, hit: Tensor, jumping: Tensor) -> None:
        """Half as far after a failure; from a success, a binary search toward the original."""
        if not any_row(jumping):
            return
        self.close(state, jumping & hit, state.x)
        state.put(jumping & ~hit, reach=state.reach / 2)
        short = state.reach < SHORTEST_JUMP * self.threat.distance(state.edge, state.rows.x0)
        self.probe(state, jumping & ~hit & short)
        self._jump(state, jumping & ~hit & ~short)

    def _jump(self, state: ProbingState, chosen: Tensor) -> None:
        ahead = state.edge + column(state.reach, state.edge) * self.threat.ascent(state.normal)
        state.put(chosen, x=ahead.clamp(0, 1))


FIRST_STEP, SHORTEST_STEP = 0.2, 2.0**-10
"""First and smallest step of the line search, as a share of the distance."""


@dataclass
class SignOptState(ProbingState):
    """The line search of each round."""

    base: Tensor
    """(R, C, H, W) the boundary point at which it started."""
    better: Tensor
    """(R,) bool: it has found a nearer point."""


@attack(
    "sign-opt",
    summary="decisions only: descent on the distance to the boundary over directions, by signs",
    source="Cheng et al. 2020",
)
class SignOpt(ProbingAttack[SignOptState]):
    """Cheng, Singh, Chen, Chen, Liu and Hsieh, ICLR 2020, algorithm 1, one query at a time.

    A probe has the distance of the best point and another direction: if it is a success, the boundary is
    nearer there. The line search doubles its step while the boundary gets nearer.
    """

    class Config(StrictModel):
        queries: int = Field(1000, ge=2)
        """Queries, the confirming one included."""
        probes: int = Field(100, ge=1)
        """Queries of each estimate of the gradient."""

    config: Config
    norms = ("l2",)
    closeness = 0.01
    spread = 0.01

    def start(self, rows: Rows) -> SignOptState:
        """A random image."""
        fields = self.started(rows)
        fields["reach"] = torch.full_like(fields["reach"], FIRST_STEP)
        return SignOptState(**fields, base=rows.x0.clone(), better=torch.zeros_like(rows.label).bool())

    def probes(self, number: Tensor) -> Tensor:
        """Constant."""
        return torch.full_like(number, self.config.probes)

    def noise(self, key: Tensor, like: Tensor) -> Tensor:
        """Of the sphere."""
        noise = rng.normal(key, like.shape[1:])
        return noise.div_(column(noise.flatten(1).norm(dim=1), noise))

    def placed(self, state: SignOptState, x: Tensor) -> Tensor:
        """At the distance of ``edge`` from the original, in the direction of ``x``."""
        x0 = state.rows.x0
        way, radius = x - x0, (state.edge - x0).flatten(1).norm(dim=1)
        return x0 + column(radius / way.flatten(1).norm(dim=1).clamp(min=1e-12), way) * way

    def probe(self, state: SignOptState, chosen: Tensor) -> None:
        """Starts a round at ``edge``."""
        super().probe(state, chosen)
        state.put(chosen, base=state.edge, better=False)

    def prepare_jump(self, state: SignOptState, ready: Tensor) -> None:
        """The step with which the last line search ended."""
        self._step_aside(state, ready)

    def jump(self, state: SignOptState, hit: Tensor, jumping: Tensor) -> None:
        """From a success, a binary search toward the original; after a failure, a shorter step or a round."""
        if not any_row(jumping):
            return
        self.close(state, jumping & hit, state.x)
        failed = jumping & ~hit
        state.put(failed, reach=state.reach / torch.where(state.better, 2, 4))
        lost = state.reach < SHORTEST_STEP
        self._step_aside(state, failed & ~state.better & ~lost)
        ended = failed & (state.better | lost)
        state.put(ended & lost, reach=FIRST_STEP)
        self.probe(state, ended)

    def arrive(self, state: SignOptState, arrived: Tensor) -> Tensor:
        """Doubles the step of a line search that found a nearer point."""
        nearer = arrived & (state.round > 0)
        if any_row(nearer):
            edge = self.between(state, state.high)
            state.put(nearer, edge=edge, better=True, reach=state.reach * 2, phase=JUMP)
            self._step_aside(state, nearer)
        return arrived & ~nearer

    def _step_aside(self, state: SignOptState, chosen: Tensor) -> None:
        """Queries at the distance of ``edge`` in the direction of a step from ``base``."""
        length = state.reach * (state.base - state.rows.x0).flatten(1).norm(dim=1)
        state.put(
            chosen, x=self.placed(state, state.base + column(length, state.base) * state.normal).clamp(0, 1)
        )
