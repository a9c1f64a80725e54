"""The only door to the model: counts passes, notices successes, leaves the model as it was."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from advkit.attacks.attack import Rows, State
from advkit.attacks.loss import AttackLoss
from advkit.attacks.record import TensorRecord, column
from advkit.threat import Threat

Precision = Literal["float32", "bfloat16"]


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
    forwards: Tensor
    """(R,) forward passes spent on the row."""
    backwards: Tensor
    """(R,) backward passes."""

    @classmethod
    def of(cls, state: State) -> Seats:
        """Rows that have just sat down."""
        none = torch.zeros_like(state.iteration)
        return cls(state, none.bool(), state.x.clone(), none, none.clone(), none.clone())


def wrong(logits: Tensor, label: Tensor, goal: Tensor) -> Tensor:
    """(R,) bool: the attacker's aim is met; a row with a NaN among its logits never is."""
    said = logits.argmax(1)
    met = torch.where(goal >= 0, said == goal, said != label)
    return met & ~logits.isnan().any(1)


class Oracle:
    """Answers an attack's questions about a batch of rows.

    Args:
        model: images in [0, 1] to logits; must be in eval mode (see `evaluation_mode`).
        threat: a misclassified point counts only inside it.
        precision: arithmetic of the search; confirmation is always in the model's own.
        targeted: some rows have a goal.
    """

    def __init__(
        self, model: nn.Module, threat: Threat, precision: Precision = "float32", *, targeted: bool = False
    ) -> None:
        self.model, self.threat, self.precision, self.targeted = model, threat, precision, targeted
        self.forwards = 0
        """Images passed forward so far."""
        self.backwards = 0
        """Images passed backward so far."""
        self.noticed = 0
        """Successes that the search saw."""
        self.confirmed = 0
        """Of those, the ones that the model itself repeated on the exact tensor."""
        self._seats: Seats | None = None

    def attend(self, seats: Seats | None) -> None:
        """Successes from now on are noted in ``seats``, whose rows the questions must be about."""
        self._seats = seats

    def logits(self, x: Tensor) -> Tensor:
        """(R, K) logits of one point a row."""
        with torch.no_grad(), self._arithmetic(x):
            logits: Tensor = self.model(x)
        logits = logits.float()
        self._count(x, backward=False)
        self._notice(x, logits)
        return logits

    def loss_and_grad(self, x: Tensor, rows: Rows, loss: AttackLoss) -> tuple[Tensor, Tensor, Tensor]:
        """(what to climb (R,), its gradient with respect to x (R, C, H, W), logits (R, K)).

        To climb: the loss of the true class, or minus the loss of the goal where a row has one. Gradients
        of the model's parameters are neither computed nor touched.
        """
        x = x.detach().requires_grad_(True)
        with torch.enable_grad(), self._arithmetic(x):
            logits = self.model(x).float()
            values = self._climbed(logits, rows, loss)
        if values.requires_grad:  # a step or a threshold before the first layer cuts the graph: zero, then
            (grad,) = torch.autograd.grad(values.sum(), x, allow_unused=True, materialize_grads=True)
        else:
            grad = torch.zeros_like(x)
        x = x.detach()
        logits = logits.detach()
        self._count(x, backward=True)
        self._notice(x, logits)
        return values.detach(), grad, logits

    def _climbed(self, logits: Tensor, rows: Rows, loss: AttackLoss) -> Tensor:
        if not self.targeted:
            return loss(logits, rows.label)
        aimed = rows.goal >= 0
        values = loss(logits, torch.where(aimed, rows.goal, rows.label))
        return torch.where(aimed, -values, values)

    def confirm(self, x: Tensor, seats: Seats) -> Tensor:
        """(R,) bool: the model itself, in its own precision, is wrong on exactly this allowed tensor."""
        with torch.no_grad():
            logits = self.model(x)
        self.forwards += len(x)
        rows = seats.state.rows
        confirmed = wrong(logits, rows.label, rows.goal) & self.threat.contains(x, rows.x0)
        noticed, repeated = torch.stack([seats.won.sum(), (seats.won & confirmed).sum()]).tolist()
        self.noticed += noticed
        self.confirmed += repeated
        return confirmed

    def _arithmetic(self, x: Tensor) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(x.device.type, torch.bfloat16)

    def _count(self, x: Tensor, *, backward: bool) -> None:
        self.forwards += len(x)
        self.backwards += len(x) if backward else 0
        if self._seats is not None:
            self._seats.forwards += 1
            if backward:
                self._seats.backwards += 1

    def _notice(self, x: Tensor, logits: Tensor) -> None:
        seats = self._seats
        if seats is None:
            return
        rows = seats.state.rows
        news = wrong(logits, rows.label, rows.goal) & ~seats.won
        if x.device.type == "cpu" and not news.any():  # elsewhere the question would stall the queue
            return
        news &= self.threat.contains(x, rows.x0)
        seats.won_x = torch.where(column(news, x), x, seats.won_x)
        seats.won_at = torch.where(news, seats.state.iteration, seats.won_at)
        seats.won |= news
