"""For tests of models: robustness as an assertion."""

from __future__ import annotations

from typing import Any, Literal

from advkit.core.threat import Threat
from advkit.evaluation.comparison.compare import Source
from advkit.evaluation.evaluate import evaluate
from advkit.evaluation.gate.judge import judge
from advkit.evaluation.gate.settings import Requirement
from advkit.evaluation.result import EvaluationResult


def assert_robust(
    model: Any,
    data: Any,
    threat: Threat | None = None,
    *,
    at_least: float,
    of: Literal["interval", "accuracy"] = "interval",
    accept_doubt: tuple[str, ...] = (),
    **how: Any,
) -> EvaluationResult:
    """Fails unless a model is robust, judged as `advkit gate` does.

    Args:
        model: as for `advkit.evaluate`.
        data: likewise.
        threat: likewise.
        at_least: robust accuracy that must be reached, in [0, 1].
        of: what must reach it: the lower end of the exact 95 % interval, or the accuracy itself.
        accept_doubt: checks (see `advkit ls checks`) whose doubt is no failure.
        **how: further arguments of `advkit.evaluate`, such as ``n`` and ``attack``.

    Returns:
        The evaluation.

    Raises:
        AssertionError: it is less robust, or a check doubts the number.
        UserError: as `advkit.evaluate`.

    Example:
        >>> from advkit import Threat
        >>> from advkit.testing import assert_robust
        >>> def test_my_model():
        ...     assert_robust("clf.pt", "digits", Threat("linf", 0.1), at_least=0.6, n=500)
    """
    asked = Requirement(name="robust", robust=at_least, of=of, accept_doubt=accept_doubt)
    result = evaluate(model, data, threat, **how)
    missed = [finding.detail for finding in judge(asked, Source(result)) if not finding.passed]
    if missed:
        raise AssertionError("; ".join(missed))
    return result
