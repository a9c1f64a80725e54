"""Losses that are no longer finite."""

from __future__ import annotations

import pytest

from advkit.core.errors import DivergedError
from advkit.training.diverged import stop_if_diverged


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_divergence(loss):
    stop_if_diverged("step 3", {"d_loss": 0.7, "g_loss": -0.1}, "try less")
    with pytest.raises(DivergedError, match=r"step 3.*g_loss"):
        stop_if_diverged("step 3", {"d_loss": 0.7, "g_loss": loss}, "try less")
