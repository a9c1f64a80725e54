"""The only door to the model: counts passes, notices successes, leaves the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advkit.attacks.attack import Access, Rows, State
from advkit.attacks.engine.passage import passage
from advkit.attacks.engine.record import TensorRecord, column
from advkit.attacks.loss import AttackLoss, picked, strongest_other
from advkit.core.levels import round_inside
from advkit.core.threat import Threat

FEWEST = 16
"""Rows of the smallest pass. With fewer, libraries take other kernels, whose last bits differ; so smaller
batches are filled up with copies, and what is found on an image does not depend on the images beside it."""

Transform = Callable[[Tensor], Tensor]


@dataclass
class Seats(TensorRecord):
    """The rows at work, and what the oracle has noticed of each."""

    state: State
    won: Tensor
    """(R,) bool: a success awaits confirmation."""
    won_x: Tensor
    """(R, C, H, W) the successful point, where won."""
    won_at: Tensor
    """(R,) its iteration."""
    won_margin: Tensor
    """(R,) its margin."""
    won_clearly: Tensor
    """(R,) bool: by more than the search may round off."""
    radius: Tensor
    """(R,) how far from the original a success may be: the budget, or the nearest success so far."""
    margin: Tensor
    """(R,) largest margin seen at an allowed point: how near the row came to winning."""
    refuted: Tensor
    """(R,) margin of the last success that the model itself did not repeat."""
    refusals: Tensor
    """(R,) how many successes it did not repeat."""
    forwards: Tensor
    """(R,) forward passes spent on the row."""
    backwards: Tensor
    """(R,) backward passes."""

    @classmethod
    def of(cls, state: State, threat: Threat) -> Seats:
        """Rows that have just sat down."""
        none = torch.zeros_like(state.iteration)
        low = state.x.new_full((len(none),), -torch.inf)
        radius = torch.full_like(low, threat.eps + threat.slack)
        return cls(
            state,
            won=none.bool(),
            won_x=state.x.clone(),
            won_at=none.clone(),
            won_margin=low.clone(),
            won_clearly=none.bool(),
            radius=radius,
            margin=low.clone(),
            refuted=low.clone(),
            refusals=none.clone(),
            forwards=none.clone(),
            backwards=none.clone(),
        )


def margin_of(logits: Tensor, rows: Rows) -> Tensor:
    """(R,) positive where the attacker's aim is met; NaN where a logit is."""
    return _margin(logits, rows.label, rows.goal)


def _margin(logits: Tensor, label: Tensor, goal: Tensor | None) -> Tensor:
    if goal is None:
        return strongest_other(logits, label) - picked(logits, label)
    return picked(logits, goal) - strongest_other(logits, goal)


def ask(model: nn.Module, x: Tensor) -> Tensor:
    """(R, K) logits, from a pass of at least `FEWEST` rows."""
    missing = FEWEST - len(x)
    if missing <= 0:
        return model(x)  # type: ignore[no-any-return]
    return model(torch.cat([x, x[:1].expand(missing, *x.shape[1:])]))[: len(x)]  # type: ignore[no-any-return]


class Oracle:
    """Answers an attack's questions about a batch of rows.

    Args:
        model: images in [0, 1] to logits; must be in eval mode (see `evaluation_mode`).
        threat: a misclassified point counts only inside it.
        searcher: the copy to search on (see `advkit.attacks.engine.searcher`); None: the model.
        access: what may be asked.
        nearest: keep the nearest success rather than the first.
        votes: passes whose mean probabilities confirm a success; above 1 for randomised models only.
        eight_bit: what is reported are images of 8-bit levels.
        climb: what gradients are taken of, whatever loss an attack asks for.
    """

    def __init__(
        self,
        model: nn.Module,
        threat: Threat,
        searcher: nn.Module | None = None,
        *,
        access: Access = "gradients",
        nearest: bool = False,
        votes: int = 1,
        eight_bit: bool = False,
        climb: AttackLoss | None = None,
    ) -> None:
        self.model, self.threat, self.access, self.climb = model, threat, access, climb
        self.searcher = model if searcher is None else searcher
        self.nearest, self.votes, self.eight_bit = nearest, votes, eight_bit
        # Bfloat16 keeps 8 bits of a logit: what is this near to winning may have won.
        self._blur = 2.0**-7 if getattr(self.searcher, "dtype", None) == torch.bfloat16 else 0.0
        self.forwards = 0
        """Images passed forward so far."""
        self.backwards = 0
        """Images passed backward so far."""
        self._seats: Seats | None = None

    def attend(self, seats: Seats | None) -> None:
        """Successes from now on are noted in ``seats``, whose rows the questions must be about."""
        self._seats = seats

    def look(self, x: Tensor) -> None:
        """Judges one point a row and tells nothing: one query of each."""
        self._logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """(R, K) logits of one point a row: one query of each."""
        self._grant("scores")
        return self._logits(x)

    def first_better(
        self, x: Tensor, asked: Tensor, rows: Rows, loss: AttackLoss, best: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of M points a row, judged in one pass, the first at which a loss is above what the row has reached.

        Those behind it are as if never asked about: they are neither noticed nor counted, so that the answer
        is the same as to one question after another.

        Args:
            x: (R, M, C, H, W), all inside the threat model.
            asked: (R, M) bool: the points that are meant. Elsewhere than on the CPU, where leaving the others
                out would mean waiting for the queue, the model sees all.
            rows: what is known of each row.
            loss: what is compared; it is told `Rows.aim`.
            best: (R,) what each row has reached.

        Returns:
            ((R,) bool: there is such a point, (R,) its place, else M - 1, (R,) the loss there)
        """
        self._grant("scores")
        many, points = x.shape[1], x.flatten(0, 1)
        some = x.device.type == "cpu" and not bool(asked.all())
        with torch.no_grad():
            if some:
                index = asked.flatten().nonzero()[:, 0]
                told = ask(self.searcher, points.index_select(0, index)).float()
                logits = told.new_full((len(points), told.shape[1]), torch.nan).index_copy_(0, index, told)
            else:
                logits = ask(self.searcher, points).float()
        self.forwards += len(told) if some else len(points)
        logits = logits.view(len(x), many, -1)
        aim = None if rows.aim is None else rows.aim[:, None].expand(-1, many)
        values = loss(logits, rows.label[:, None].expand(-1, many), aim)
        better = (values > best[:, None]) & asked
        found, place = better.any(1), torch.arange(many, device=x.device)
        first = torch.where(found, better.int().argmax(1), many - 1)
        meant = asked & (place <= first[:, None])
        if self._seats is not None:
            self._seats.forwards += meant.sum(1)
            self._notice_several(x, logits, meant)
        return found, first, values.gather(1, first[:, None])[:, 0]

    def decisions(self, x: Tensor) -> Tensor:
        """(R,) predicted classes of one point a row: one query of each."""
        self._grant("decisions")
        return self._logits(x).argmax(1)

    def loss_and_grad(
        self, x: Tensor, rows: Rows, loss: AttackLoss, through: Transform | None = None, samples: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(loss to climb (R,), its gradient with respect to x (R, C, H, W), logits (R, K)).

        Gradients of the model's parameters are neither computed nor touched.

        Args:
            x: one point a row.
            rows: what is known of each.
            loss: what to climb; it is told `Rows.aim`.
            through: applied to x before the model, inside the gradient; successes are not noticed then,
                since the model has not seen x itself.
            samples: passes to average over, for models or transforms that draw random numbers.
        """
        self._grant("gradients")
        loss = self.climb or loss
        x = x.detach().requires_grad_(True)
        values, grad, logits = self._loss_and_grad(x, rows, loss, through)
        for _ in range(samples - 1):
            more = self._loss_and_grad(x, rows, loss, through)
            values, grad, logits = values + more[0], grad + more[1], logits + more[2]
        if samples > 1:
            values, grad, logits = values / samples, grad / samples, logits / samples
        if through is None:
            self._notice(x.detach(), logits)
        return values, grad, logits

    def _loss_and_grad(
        self, x: Tensor, rows: Rows, loss: AttackLoss, through: Transform | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            logits = ask(self.searcher, x if through is None else through(x)).float()
            values = loss(logits, rows.label, rows.aim)
        self._count(len(x), forwards=1, backwards=1)
        return values.detach(), _gradient(values, x), logits.detach()

    def jacobian(self, x: Tensor, outputs: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(values (R, M), their gradients (R, M, C, H, W), logits (R, K)): one forward, M backward passes.

        Args:
            x: one point a row.
            outputs: logits (R, K) to values (R, M).
        """
        self._grant("gradients")
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = ask(self.searcher, x).float()
            values = outputs(logits)
        last = values.shape[1] - 1
        grads = [_gradient(values[:, i], x, keep=i < last) for i in range(last + 1)]
        logits = logits.detach()
        self._count(len(x), forwards=1, backwards=last + 1)
        self._notice(x.detach(), logits)
        return values.detach(), torch.stack(grads, 1), logits

    def sole(self, x: Tensor) -> Tensor:
        """(M, K) logits of M points of the only row at work: one query each.

        For code that differentiates by itself: they are the model's own, with their gradient to ``x``, and
        every backward pass is counted when it happens.
        """
        self._grant("gradients")
        logits = passage(self.model, x, self._count)
        self._notice_best(x.detach(), logits.detach())
        return logits

    @property
    def fallen(self) -> bool:
        """Whether the only row at work has a success that the model repeats: no more need be asked."""
        seats = self._seats
        if seats is None or self.nearest or not bool(seats.won[0]):
            return False
        rows = seats.state.rows
        seats.forwards += self.votes
        if bool(self.confirm(self.reported(seats.won_x, rows), rows)):
            return True
        seats.refuted, seats.won = seats.won_margin.clone(), torch.zeros_like(seats.won)
        seats.refusals += seats.won_clearly
        return False

    def reported(self, x: Tensor, rows: Rows) -> Tensor:
        """(R, C, H, W) what is confirmed and reported of points inside the threat model."""
        return round_inside(x, rows.x0, self.threat) if self.eight_bit else x

    def confirm(self, x: Tensor, rows: Rows) -> Tensor:
        """(R,) bool: the model itself, in its own precision, is wrong on exactly this allowed tensor."""
        with torch.no_grad():
            logits = ask(self.model, x)
            if self.votes > 1:
                votes = [logits, *(ask(self.model, x) for _ in range(self.votes - 1))]
                logits = torch.stack([vote.softmax(1) for vote in votes]).mean(0)
        self.forwards += self.votes * len(x)
        wanted = rows.label if rows.goal is None else rows.goal
        met = (logits.argmax(1) == wanted) == (rows.goal is not None)
        return met & ~logits.isnan().any(1) & self.threat.contains(x, rows.x0)

    def _logits(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = ask(self.searcher, x).float()
        self._count(len(x), forwards=1, backwards=0)
        self._notice(x, logits)
        return logits

    def _grant(self, asked: Access) -> None:
        order = ("none", "decisions", "scores", "gradients")
        if order.index(asked) > order.index(self.access):
            raise PermissionError(f"an attack that sees {self.access} asked for {asked}")

    def _count(self, rows: int, *, forwards: int = 0, backwards: int = 0) -> None:
        self.forwards += forwards * rows
        self.backwards += backwards * rows
        if self._seats is not None:
            each = rows // len(self._seats)
            self._seats.forwards += forwards * each
            self._seats.backwards += backwards * each

    def _notice_best(self, x: Tensor, logits: Tensor) -> None:
        """Of several points of the only row, notices the nearest success, or the one nearest to success."""
        seats = self._seats
        if seats is None:
            return
        rows = seats.state.rows.take(torch.zeros(len(x), dtype=torch.int64, device=x.device))
        margin, distance = margin_of(logits, rows), self.threat.distance(x, rows.x0)
        allowed = (distance <= seats.radius) & self.threat.boxed(x) & ~margin.isnan()
        if self.nearest:
            merit = torch.where(margin > seats.refuted.clamp(min=0), -distance, -torch.inf)
        else:
            merit = margin
        best = torch.where(allowed, merit, -torch.inf).argmax()[None]
        self._notice(x[best], logits[best])

    def _notice_several(self, x: Tensor, logits: Tensor, meant: Tensor) -> None:
        """Of several points of each row (R, M, C, H, W), notices the one nearest to success."""
        if x.shape[1] == 1 and x.device.type == "cpu":
            return self._notice(x[:, 0], logits[:, 0])
        seats = self._seats
        assert seats is not None
        rows, many = seats.state.rows, x.shape[1]
        goal = None if rows.goal is None else rows.goal[:, None].expand(-1, many)
        margin = _margin(logits, rows.label[:, None].expand(-1, many), goal)
        at = torch.arange(len(x), device=x.device)
        if x.device.type == "cpu":  # as in `_notice`
            at = (self._news(margin, logits) & meant).any(1).nonzero()[:, 0]
            if len(at) == 0:
                return
        best = torch.where(meant & ~margin.isnan(), margin, -torch.inf)[at].argmax(1)
        self._notice(x[at, best], logits[at, best], at, late=best)

    def _news(self, margin: Tensor, logits: Tensor) -> Tensor:
        """Bool like ``margin`` (R, ...): a success perhaps, or nearer to one than the row has been so far."""
        seats = self._seats
        assert seats is not None
        bar = self._bar(logits)
        if self.nearest:
            return margin > bar
        return (margin > bar) | (margin > column(seats.margin, margin))

    def _bar(self, logits: Tensor) -> Tensor | float:
        """(R, ...) margin above which a point may be a success."""
        return -self._blur * logits.abs().amax(-1) if self._blur else 0.0

    def _notice(
        self, x: Tensor, logits: Tensor, at: Tensor | slice = slice(None), late: Tensor | int = 0
    ) -> None:
        """Notes successes, and how near to one each row came.

        Args:
            x: (R, C, H, W) one point a row.
            logits: (R, K) there.
            at: (R,) the rows that they are of; by default all.
            late: (R,) how many points of this step came before.
        """
        seats = self._seats
        if seats is None:
            return
        rows, iteration = seats.state.rows, seats.state.iteration
        goal = None if rows.goal is None else rows.goal[at]
        margin = _margin(logits, rows.label[at], goal)
        if x.device.type == "cpu" and isinstance(at, slice):
            # Most points are no news. Elsewhere the question would stall the queue.
            at = self._news(margin, logits).nonzero()[:, 0]
            if len(at) == 0:
                return
            x, logits, margin = x[at], logits[at], margin[at]
        bar = self._bar(logits)
        distance, radius = self.threat.distance(x, rows.x0[at]), seats.radius[at]
        won = (margin > bar) & (margin > seats.refuted[at])
        if self.nearest:
            won &= distance < radius
        else:
            inside, before = (distance <= radius) & self.threat.boxed(x), seats.margin[at]
            seats.margin[at] = torch.where(inside & (margin > before), margin, before)
            won &= inside & ~seats.won[at]
        if x.device.type == "cpu" and not won.any():
            return
        won &= self.threat.boxed(x)
        seats.won_x[at] = torch.where(column(won, x), x, seats.won_x[at])
        seats.won_at[at] = torch.where(won, iteration[at] + late, seats.won_at[at])
        seats.won_margin[at] = torch.where(won, margin, seats.won_margin[at])
        seats.won_clearly[at] = torch.where(won, margin > -bar, seats.won_clearly[at])
        seats.won[at] |= won
        if self.nearest:
            seats.radius[at] = torch.where(won, distance, radius)


def _gradient(values: Tensor, x: Tensor, *, keep: bool = False) -> Tensor:
    """Of the sum of ``values``; zero where a step or a threshold before the first layer cuts the graph."""
    if not values.requires_grad:
        return torch.zeros_like(x)
    (grad,) = torch.autograd.grad(
        values.sum(), x, retain_graph=keep, allow_unused=True, materialize_grads=True
    )
    return grad
