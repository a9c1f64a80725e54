"""Signs that robust training goes wrong: a plateau at the start, and two kinds of overfitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

ROWS = 3
"""Checks after which one may speak of a course."""
MOVED = 0.03
"""Share by which the loss has decreased in a run that makes progress."""
GUESSED = 2
"""Accuracy on training batches, in units of that of guessing, under which a loss that does not move is a
plateau; among two or three classes, halfway from guessing to 1."""
COLLAPSED = 0.5
"""Share of the best robust accuracy on training images under which it is said to have collapsed."""
FALLEN = 0.04
"""Decrease of robust accuracy on held-out images that counts as overfitting; the best of many
checks on a hundred images lies as far above the last ones by chance."""


def warnings(rows: Sequence[Mapping[str, Any]], classes: int) -> dict[str, str]:
    """What goes wrong at the last of a run's checks, by kind: what is seen and what to try, for a person.

    Robust accuracies are those under PGD, on held-out images and, of the model on images that it trains on,
    ``train_robust``. Runs without them are only checked for a plateau.
    """
    said: dict[str, str] = {}
    if len(rows) < ROWS:
        return said
    since, last = rows[-ROWS:], rows[-1]
    guessing = min(GUESSED / classes, (1 + 1 / classes) / 2)
    if all(row["accuracy"] < guessing for row in since) and last["loss"] > (1 - MOVED) * since[0]["loss"]:
        said["plateau"] = (
            f"the loss has not moved from {since[0]['loss']:.2f} in {ROWS} checks, and accuracy on "
            f"training batches ({last['accuracy']:.0%}) is hardly better than that of guessing: at a large "
            "eps, training begins on a plateau; let eps grow over a longer share of the run (--set "
            "parameters.eps_warmup=0.3), or try a smaller --rate"
        )
    if "train_robust" not in last:
        return said
    peak = max(rows, key=lambda row: row["train_robust"])
    if last["train_robust"] < COLLAPSED * peak["train_robust"] and last["accuracy"] >= peak["accuracy"]:
        said["catastrophic overfitting"] = (
            f"accuracy on the attacker's own examples is {last['accuracy']:.0%}, but under PGD "
            f"{last['train_robust']:.0%} on the same images, down from {peak['train_robust']:.0%} at update "
            f"{peak['step']}: catastrophic overfitting (Wong et al. 2020), the model is robust to "
            "this attack only; try a shorter step (--set parameters.step=1), a longer eps_warmup, or "
            "--objective pgd"
        )
        return said
    spans = [rows[at : at + ROWS] for at in range(len(rows) - ROWS + 1)]
    best = max(spans, key=lambda span: _mean(span, "robust"))
    held, train = ([_mean(span, key) for span in (best, since)] for key in ("robust", "train_robust"))
    if held[1] < held[0] - FALLEN and train[1] > train[0]:
        said["robust overfitting"] = (
            f"robust accuracy on held-out images has decreased from {held[0]:.1%} around update "
            f"{best[ROWS // 2]['step']} to {held[1]:.1%}, while on training images it rose from "
            f"{train[0]:.1%} to {train[1]:.1%} (means of {ROWS} checks): robust overfitting (Rice et al. "
            "2020); the best check is kept, and --patience ends a run there; --shift, --extra-data or "
            "--set parameters.awp=0.005 put it off"
        )
    return said


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return fmean(row[key] for row in rows)
