"""Access of attacks to the model: counts passes, records successes, leaves the model unchanged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advkit.attacks.attack import Access, Rows, State
from advkit.attacks.engine.counted_forward import counted_forward
from advkit.attacks.engine.record import TensorRecord, column
from advkit.attacks.loss import AttackLoss, picked, strongest_other
from advkit.core.levels import round_inside
from advkit.core.threat import Threat
from advkit.models.black_box import black_box
from advkit.models.blame import backward_pass

FEWEST = 16
"""Smallest batch of a pass. Smaller batches use other kernels, which round differently; so they are padded
with copies, and the result of an image does not depend on the rest of its batch."""

Transform = Callable[[Tensor], Tensor]


@dataclass
class RowBuffer(TensorRecord):
    """The rows in progress, and what the oracle has recorded of each."""

    state: State
    success: Tensor
    """(R,) bool: a success is to be confirmed."""
    success_x: Tensor
    """(R, C, H, W) the successful point, where ``success``."""
    success_step: Tensor
    """(R,) its iteration."""
    success_margin: Tensor
    """(R,) its margin."""
    success_certain: Tensor
    """(R,) bool: its margin exceeds the rounding error of the search."""
    radius: Tensor
    """(R,) largest allowed distance of a success: the budget, or that of the nearest success so far."""
    margin: Tensor
    """(R,) largest margin at an allowed point so far."""
    refuted: Tensor
    """(R,) margin of the last success that the model did not confirm."""
    refusals: Tensor
    """(R,) number of successes that it did not confirm."""
    undefined: Tensor
    """(R,) bool: the logits of an allowed point, or a gradient, were not numbers."""
    forwards: Tensor
    """(R,) forward passes spent on the row."""
    backwards: Tensor
    """(R,) backward passes."""

    @classmethod
    def of(cls, state: State, threat: Threat) -> RowBuffer:
        """Rows that have just been added."""
        none = torch.zeros_like(state.iteration)
        low = state.x.new_full((len(none),), -torch.inf)
        radius = torch.full_like(low, threat.eps + threat.slack)
        return cls(
            state,
            success=none.bool(),
            success_x=state.x.clone(),
            success_step=none.clone(),
            success_margin=low.clone(),
            success_certain=none.bool(),
            radius=radius,
            margin=low.clone(),
            refuted=low.clone(),
            refusals=none.clone(),
            undefined=none.bool(),
            forwards=none.clone(),
            backwards=none.clone(),
        )


def margin_of(logits: Tensor, rows: Rows) -> Tensor:
    """(R,) positive where the attack succeeds; NaN where a logit is."""
    return _margin(logits, rows.label, rows.target_class)


def _margin(logits: Tensor, label: Tensor, target_class: Tensor | None) -> Tensor:
    if target_class is None:
        return strongest_other(logits, label) - picked(logits, label)
    return picked(logits, target_class) - strongest_other(logits, target_class)


def query(model: nn.Module, x: Tensor, sample: Tensor | None = None) -> Tensor:
    """(R, K) logits, from a pass of at least `FEWEST` rows.

    Without gradients, in two passes where the memory does not hold one. A black box is sent these rows alone,
    as queries about the images with the ids ``sample`` (R,).
    """
    if (box := black_box(model)) is not None:
        with box.about(sample):
            return model(x)  # type: ignore[no-any-return]
    missing = FEWEST - len(x)
    if missing <= 0:
        if torch.is_grad_enabled() or len(x) == FEWEST:
            return model(x)  # type: ignore[no-any-return]
        with suppress(torch.cuda.OutOfMemoryError):
            return model(x)  # type: ignore[no-any-return]
        return torch.cat([query(model, half) for half in x.chunk(2)])
    return model(torch.cat([x, x[:1].expand(missing, *x.shape[1:])]))[: len(x)]  # type: ignore[no-any-return]


class Oracle:
    """Answers an attack's queries about a batch of rows.

    Args:
        model: images in [0, 1] to logits; must be in eval mode (see `evaluation_mode`).
        threat: a misclassified point counts only inside this threat model.
        search_model: the copy to search on (see `advkit.attacks.engine.search_model`); None: the model.
        nearest: keep the nearest success rather than the first.
        votes: passes whose mean probabilities confirm a success; above 1 for randomised models only.
        eight_bit: report images of 8-bit levels.
        loss: differentiated instead of the attack's own loss.
    """

    def __init__(
        self,
        model: nn.Module,
        threat: Threat,
        search_model: nn.Module | None = None,
        *,
        access: Access = "gradients",
        nearest: bool = False,
        votes: int = 1,
        eight_bit: bool = False,
        loss: AttackLoss | None = None,
    ) -> None:
        self.model, self.threat, self.access, self.loss = model, threat, access, loss
        self.search_model = model if search_model is None else search_model
        self.nearest, self.votes, self.eight_bit = nearest, votes, eight_bit
        # Bfloat16 keeps 8 bits of a logit: a margin this close to 0 may be a success.
        self._blur = 2.0**-7 if getattr(self.search_model, "dtype", None) == torch.bfloat16 else 0.0
        self.forwards = 0
        """Images passed forward so far."""
        self.backwards = 0
        """Images passed backward so far."""
        self._buffer: RowBuffer | None = None
        self.box = black_box(model)
        """The black box that the model is: each row that it is sent counts, so none is sent in advance."""

    def bind(self, buffer: RowBuffer | None) -> None:
        """Records successes in ``buffer`` from now on; queries must be about its rows."""
        self._buffer = buffer

    def query(self, x: Tensor) -> None:
        """Evaluates one point a row and returns nothing: one query each."""
        self._logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """(R, K) logits of one point a row: one query each."""
        self._require("scores")
        return self._logits(x)

    def first_better(
        self, x: Tensor, asked: Tensor, rows: Rows, loss: AttackLoss, best: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of M points a row, evaluated in one pass, the first at which a loss exceeds the row's best.

        Later points are neither recorded nor counted, so that the result equals that of one query after
        another.

        Args:
            x: (R, M, C, H, W), all inside the threat model.
            asked: (R, M) bool: the points to query. Only on the CPU are the others left out of the pass;
                elsewhere that would synchronise with the device.
            loss: what is compared; it receives `Rows.search_target`.
            best: (R,) the best loss of each row so far.

        Returns:
            ((R,) bool: there is such a point, (R,) its index, else M - 1, (R,) the loss there)
        """
        self._require("scores")
        many, points = x.shape[1], x.flatten(0, 1)
        some = x.device.type == "cpu" and not bool(asked.all())
        sample = None if self.box is None else rows.sample.repeat_interleave(many)
        with torch.no_grad():
            if some:
                index = asked.flatten().nonzero()[:, 0]
                about = None if sample is None else sample[index]
                answers = query(self.search_model, points.index_select(0, index), about).float()
                logits = answers.new_full((len(points), answers.shape[1]), torch.nan)
                logits.index_copy_(0, index, answers)
            else:
                logits = query(self.search_model, points, sample).float()
        self.forwards += len(answers) if some else len(points)
        logits = logits.view(len(x), many, -1)
        target = None if rows.search_target is None else rows.search_target[:, None].expand(-1, many)
        values = loss(logits, rows.label[:, None].expand(-1, many), target)
        better = (values > best[:, None]) & asked
        found, place = better.any(1), torch.arange(many, device=x.device)
        first = torch.where(found, better.int().argmax(1), many - 1)
        meant = asked & (place <= first[:, None])
        if self._buffer is not None:
            self._buffer.forwards += meant.sum(1)
            self._record_several(x, logits, meant)
        return found, first, values.gather(1, first[:, None])[:, 0]

    def decisions(self, x: Tensor) -> Tensor:
        """(R,) predicted classes of one point a row: one query each."""
        self._require("decisions")
        return self._logits(x).argmax(1)

    def loss_and_grad(
        self, x: Tensor, rows: Rows, loss: AttackLoss, through: Transform | None = None, samples: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(loss (R,), its gradient with respect to x (R, C, H, W), logits (R, K)).

        Gradients of the model's parameters are neither computed nor touched.

        Args:
            x: one point a row.
            loss: to be maximised; it receives `Rows.search_target`.
            through: applied to x before the model, inside the gradient; successes are not recorded then,
                since the model has not evaluated x itself.
            samples: passes to average over, for models or transforms that draw random numbers.
        """
        self._require("gradients")
        loss = self.loss or loss
        x = x.detach().requires_grad_(True)
        values, grad, logits = self._loss_and_grad(x, rows, loss, through)
        for _ in range(samples - 1):
            more = self._loss_and_grad(x, rows, loss, through)
            values, grad, logits = values + more[0], grad + more[1], logits + more[2]
        if samples > 1:
            values, grad, logits = values / samples, grad / samples, logits / samples
        if through is None:
            self._record(x.detach(), logits)
        return values, grad, logits

    def _loss_and_grad(
        self, x: Tensor, rows: Rows, loss: AttackLoss, through: Transform | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            logits = query(self.search_model, x if through is None else through(x)).float()
            values = loss(logits, rows.label, rows.search_target)
        self._count(len(x), forwards=1, backwards=1)
        return values.detach(), _gradient(values, x), logits.detach()

    def jacobian(self, x: Tensor, outputs: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(values (R, M), their gradients (R, M, C, H, W), logits (R, K)): one forward, M backward passes.

        Args:
            x: one point a row.
            outputs: logits (R, K) to values (R, M).
        """
        self._require("gradients")
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = query(self.search_model, x).float()
            values = outputs(logits)
        last = values.shape[1] - 1
        grads = [_gradient(values[:, i], x, keep=i < last) for i in range(last + 1)]
        logits = logits.detach()
        self._count(len(x), forwards=1, backwards=last + 1)
        self._record(x.detach(), logits)
        return values.detach(), torch.stack(grads, 1), logits

    def single_image_logits(self, x: Tensor) -> Tensor:
        """(M, K) logits of M points of the only row in progress: one query each.

        For code that differentiates by itself: they are the model's own and differentiable with respect to
        ``x``, and every backward pass is counted when it happens.
        """
        self._require("gradients")
        logits = counted_forward(self.model, x, self._count)
        self._record_best(x.detach(), logits.detach())
        return logits

    @property
    def adversarial_found(self) -> bool:
        """Whether the only row in progress has a success that the model confirms: the attack can stop."""
        buffer = self._buffer
        if buffer is None or self.nearest or not bool(buffer.success[0]):
            return False
        rows = buffer.state.rows
        buffer.forwards += self.votes
        if bool(self.confirm(self.reported(buffer.success_x, rows), rows)):
            return True
        buffer.refuted, buffer.success = buffer.success_margin.clone(), torch.zeros_like(buffer.success)
        buffer.refusals += buffer.success_certain
        return False

    def reported(self, x: Tensor, rows: Rows) -> Tensor:
        """(R, C, H, W) the points to confirm and report, for points inside the threat model."""
        return round_inside(x, rows.x0, self.threat) if self.eight_bit else x

    def confirm(self, x: Tensor, rows: Rows) -> Tensor:
        """(R,) bool: the model itself, in its own precision, misclassifies exactly this allowed tensor."""
        with torch.no_grad():
            logits = query(self.model, x, rows.sample)
            if self.votes > 1:
                votes = [logits, *(query(self.model, x, rows.sample) for _ in range(self.votes - 1))]
                logits = torch.stack([vote.softmax(1) for vote in votes]).mean(0)
        self.forwards += self.votes * len(x)
        wanted = rows.label if rows.target_class is None else rows.target_class
        met = (logits.argmax(1) == wanted) == (rows.target_class is not None)
        return met & ~logits.isnan().any(1) & self.threat.contains(x, rows.x0)

    def _logits(self, x: Tensor) -> Tensor:
        sample = None if self._buffer is None else self._buffer.state.rows.sample
        with torch.no_grad():
            logits = query(self.search_model, x, sample).float()
        self._count(len(x), forwards=1, backwards=0)
        self._record(x, logits)
        return logits

    def _require(self, needed: Access) -> None:
        order = ("none", "decisions", "scores", "gradients")
        if order.index(needed) > order.index(self.access):
            raise PermissionError(f"an attack with access to {self.access} queried {needed}")

    def _count(self, rows: int, *, forwards: int = 0, backwards: int = 0) -> None:
        self.forwards += forwards * rows
        self.backwards += backwards * rows
        if self._buffer is not None:
            each = rows // len(self._buffer)
            self._buffer.forwards += forwards * each
            self._buffer.backwards += backwards * each

    def _record_best(self, x: Tensor, logits: Tensor) -> None:
        """Of several points of the only row, records the nearest success or the largest margin."""
        buffer = self._buffer
        if buffer is None:
            return
        rows = buffer.state.rows.take(torch.zeros(len(x), dtype=torch.int64, device=x.device))
        margin, distance = margin_of(logits, rows), self.threat.distance(x, rows.x0)
        at = margin.isnan().int().argmax()[None]
        self._note_undefined(x[at], margin[at].isnan())
        allowed = (distance <= buffer.radius) & self.threat.boxed(x) & ~margin.isnan()
        if self.nearest:
            score = torch.where(margin > buffer.refuted.clamp(min=0), -distance, -torch.inf)
        else:
            score = margin
        best = torch.where(allowed, score, -torch.inf).argmax()[None]
        self._record(x[best], logits[best])

    def _record_several(self, x: Tensor, logits: Tensor, meant: Tensor) -> None:
        """Of several points of each row (R, M, C, H, W), records that of the largest margin."""
        buffer = self._buffer
        assert buffer is not None
        rows, many = buffer.state.rows, x.shape[1]
        target_class = None if rows.target_class is None else rows.target_class[:, None].expand(-1, many)
        margin = _margin(logits, rows.label[:, None].expand(-1, many), target_class)
        nan = margin.isnan() & meant
        at = torch.arange(len(x), device=x.device)
        if x.device.type != "cpu" or nan.any():  # there, asking would synchronise
            self._note_undefined(x[at, nan.int().argmax(1)], nan.any(1))
        if x.device.type == "cpu":  # as in `_record`
            at = (self._improves(margin, logits) & meant).any(1).nonzero()[:, 0]
            if len(at) == 0:
                return
        best = torch.where(meant & ~margin.isnan(), margin, -torch.inf)[at].argmax(1)
        self._record(x[at, best], logits[at, best], at, late=best)

    def _note_undefined(self, x: Tensor, nan: Tensor) -> None:
        """Notes the rows with ``nan`` (R,) at a point (R, C, H, W), if this is allowed, or follows from a
        gradient that was no number."""
        buffer = self._buffer
        assert buffer is not None
        meant = self.threat.contains(x, buffer.state.rows.x0) | x.isnan().flatten(1).any(1)
        buffer.undefined |= nan & meant

    def _improves(self, margin: Tensor, logits: Tensor) -> Tensor:
        """Bool like ``margin`` (R, ...): possibly a success, or the row's largest margin so far."""
        buffer = self._buffer
        assert buffer is not None
        threshold = self._threshold(logits)
        if self.nearest:
            return margin > threshold
        return (margin > threshold) | (margin > column(buffer.margin, margin))

    def _threshold(self, logits: Tensor) -> Tensor | float:
        """(R, ...) margin above which a point may be a success."""
        return -self._blur * logits.abs().amax(-1) if self._blur else 0.0

    def _record(
        self, x: Tensor, logits: Tensor, at: Tensor | slice = slice(None), late: Tensor | int = 0
    ) -> None:
        """Records successes and the largest margin of each row.

        Args:
            x: (R, C, H, W) one point a row.
            logits: (R, K) there.
            at: (R,) their rows; by default all.
            late: (R,) how many points of this step came before.
        """
        buffer = self._buffer
        if buffer is None:
            return
        rows, iteration = buffer.state.rows, buffer.state.iteration
        target_class = None if rows.target_class is None else rows.target_class[at]
        margin = _margin(logits, rows.label[at], target_class)
        if isinstance(at, slice) and (x.device.type != "cpu" or margin.isnan().any()):
            self._note_undefined(x, margin.isnan())
        if x.device.type == "cpu" and isinstance(at, slice):
            # Most points change nothing. On other devices this test would synchronise.
            at = self._improves(margin, logits).nonzero()[:, 0]
            if len(at) == 0:
                return
            x, logits, margin = x[at], logits[at], margin[at]
        threshold = self._threshold(logits)
        distance, radius = self.threat.distance(x, rows.x0[at]), buffer.radius[at]
        success = (margin > threshold) & (margin > buffer.refuted[at])
        if self.nearest:
            success &= distance < radius
        else:
            inside, before = (distance <= radius) & self.threat.boxed(x), buffer.margin[at]
            buffer.margin[at] = torch.where(inside & (margin > before), margin, before)
            success &= inside & ~buffer.success[at]
        if x.device.type == "cpu" and not success.any():
            return
        success &= self.threat.boxed(x)
        buffer.success_x[at] = torch.where(column(success, x), x, buffer.success_x[at])
        buffer.success_step[at] = torch.where(success, iteration[at] + late, buffer.success_step[at])
        buffer.success_margin[at] = torch.where(success, margin, buffer.success_margin[at])
        buffer.success_certain[at] = torch.where(success, margin > -threshold, buffer.success_certain[at])
        buffer.success[at] |= success
        if self.nearest:
            buffer.radius[at] = torch.where(success, distance, radius)


def _gradient(values: Tensor, x: Tensor, *, keep: bool = False) -> Tensor:
    """Gradient of the sum of ``values``; zero where a non-differentiable operation cuts the graph."""
    if not values.requires_grad:
        return torch.zeros_like(x)
    with backward_pass():
        (grad,) = torch.autograd.grad(
            values.sum(), x, retain_graph=keep, allow_unused=True, materialize_grads=True
        )
    return grad.contiguous() if 0 in grad.stride() else grad  # attacks write into it
