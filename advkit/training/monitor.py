"""Signs that robust training goes wrong: a plateau at the start, and two kinds of overfitting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ROWS = 3
"""Checks after which one may speak of a course."""
MOVED = 0.03
"""Share by which a loss that gets anywhere has fallen."""
GUESSED = 0.2
"""Accuracy on training batches under which a model with a loss that does not move is said to guess."""
COLLAPSED = 0.5
"""Share of the best robust accuracy on training images under which it is said to have collapsed."""
FALLEN = 0.02
"""How far robust accuracy on held-out images has fallen where one speaks of overfitting."""


def warnings(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What goes wrong at the last of a run's checks, by kind: what is seen and what to try, for a person.

    Robust accuracies are those under PGD, on held-out images and, of the model on images that it trains on,
    ``train_robust``. Runs that have none are only told of a plateau.
    """
    said: dict[str, str] = {}
    if len(rows) < ROWS:
        return said
    since, last = rows[-ROWS:], rows[-1]
    guesses = all(row["accuracy"] < GUESSED for row in since)
    if guesses and last["loss"] > (1 - MOVED) * since[0]["loss"]:
        said["plateau"] = (
            f"the loss has not moved from {since[0]['loss']:.2f} in {ROWS} checks and the model guesses "
            f"(accuracy {last['accuracy']:.0%}): at a large eps, training begins on a plateau; let eps grow "
            "over a longer share of the run (--set parameters.eps_warmup=0.3), or try a smaller --rate"
        )
    if "train_robust" not in last:
        return said
    peak = max(rows, key=lambda row: row["train_robust"])
    if last["train_robust"] < COLLAPSED * peak["train_robust"] and last["accuracy"] >= peak["accuracy"]:
        said["catastrophic overfitting"] = (
            f"accuracy on the attacker's own examples is {last['accuracy']:.0%}, but under PGD "
            f"{last['train_robust']:.0%} on the same images, down from {peak['train_robust']:.0%} at update "
            f"{peak['step']}: catastrophic overfitting (Wong et al. 2020), the model withstands this "
            "attacker only; try a shorter step (--set parameters.step=1), a longer eps_warmup, or "
            "--objective pgd"
        )
        return said
    best = max(rows, key=lambda row: row["robust"])
    if (
        all(row["robust"] < best["robust"] - FALLEN and row["step"] > best["step"] for row in since)
        and last["train_robust"] > best["train_robust"]
    ):
        said["robust overfitting"] = (
            f"robust accuracy on held-out images has fallen from {best['robust']:.1%} at update "
            f"{best['step']} to {last['robust']:.1%}, while on training images it rose from "
            f"{best['train_robust']:.1%} to {last['train_robust']:.1%}: robust overfitting (Rice et al. "
            "2020); the best check is kept, and --patience ends a run there; --shift, --extra-data or "
            "--set parameters.awp=0.005 put it off"
        )
    return said


def first_warnings(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The first warning of each kind in a run's metrics, with its update."""
    said: dict[str, str] = {}
    seen: list[Mapping[str, Any]] = []
    for row in rows:
        seen.append(row)
        for kind, sentence in warnings(seen).items():
            said.setdefault(kind, f"update {row['step']}: {sentence}")
    return list(said.values())
