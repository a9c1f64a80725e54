"""Which threat model is assumed, and what is said of it."""

from types import SimpleNamespace

import pytest

from advkit.data import threats
from advkit.progress import Progress
from advkit.threat import Threat


class Heard(Progress):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


@pytest.mark.parametrize(
    ("norm", "eps", "expected", "told"),
    [
        (None, None, 0.15, ["0.15", "trained against"]),
        (None, 0.2, 0.2, ["0.2", "norm is"]),  # not the budget that the model was trained against
        ("linf", 0.2, 0.2, []),
    ],
)
def test_only_what_was_assumed_is_called_so(norm, eps, expected, told):
    model = SimpleNamespace(card=SimpleNamespace(threat=Threat("linf", 0.15)))
    heard = Heard()
    chosen = threats.choose(norm, eps, model, SimpleNamespace(threat=None, name="toy"), heard)
    assert chosen == Threat("linf", expected)
    assert [all(word in said for word in told) for said in heard.said] == [True] * bool(told)
