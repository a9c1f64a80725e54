"""The plugin of pytest: a marker for tests of robustness, and a fixture that measures what the marker says.

pytest finds it by its entry point when advkit is installed. It changes no test that does not ask for it, and
loads PyTorch only when one does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from advkit.evaluation.result import EvaluationResult

MARKER = (
    "robust(**how): the test measures a model's robustness; the keywords, those of "
    "advkit.testing.assert_robust, are defaults of the fixture assert_robust"
)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def assert_robust(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[..., EvaluationResult]:
    """`advkit.testing.assert_robust`, with the keywords of the test's markers ``robust`` as defaults.

    What was found is a property of the test in pytest's JUnit XML, and a section of its report.

    Example:
        >>> import pytest
        >>> from advkit import Threat
        >>> @pytest.mark.robust(data="digits", threat=Threat("linf", 0.1), at_least=0.6, n=500)
        ... def test_my_model(assert_robust):
        ...     assert_robust("clf.pt")
    """
    defaults: dict[str, Any] = {}
    for mark in request.node.iter_markers("robust"):
        if mark.args:
            raise pytest.UsageError(f"{request.node.nodeid}: the marker robust takes keywords only")
        defaults = dict(mark.kwargs) | defaults  # the nearest marker comes first, and counts

    def measured(model: Any, **how: Any) -> EvaluationResult:
        from advkit import testing

        result = testing.assert_robust(model, **(defaults | how))
        record_property("robust_accuracy", result.robust_accuracy)
        record_property("robust_interval", list(result.interval))
        record_property("model_hash", result.model_hash)
        request.node.add_report_section("call", "advkit", str(result))
        return result

    return measured
