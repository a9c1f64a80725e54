"""The monitor sees a collapse and says nothing of a good run."""

from __future__ import annotations

import pytest
import torch

from advkit import rng
from advkit.data.load import load_data
from advkit.errors import DivergedError
from advkit.gan.monitor import Monitor, covered, diversity, first_warnings, stop_if_diverged, warnings
from advkit.gan.plan import GanTraining
from advkit.gan.train import train_gan
from advkit.progress import Progress


class Heard(Progress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def say(self, message: str) -> None:
        self.messages.append(message)


def test_diversity_is_the_mean_distance():
    images = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]).view(3, 1, 1, 2)
    assert diversity(images) == pytest.approx(10 / 3)


def test_diversity_is_a_share_of_the_real_ones():
    real = rng.uniform(torch.arange(20), (1, 8, 8))
    monitor = Monitor(real)
    assert monitor.relative_diversity(real) == pytest.approx(1)
    assert monitor.relative_diversity(0.5 + 0.25 * (real - 0.5)) == pytest.approx(0.25)
    assert monitor.relative_diversity(real[:1].expand(20, 1, 8, 8)) == 0


def test_only_what_is_wrong_is_said_once_and_only_where_samples_were_drawn():
    rows = [
        {"step": 50, "d_accuracy": 1.0},
        {"step": 100, "d_accuracy": 0.6, "diversity": 0.9},
        {"step": 200, "d_accuracy": 0.99, "diversity": 0.9},
        {"step": 300, "d_accuracy": 0.99, "diversity": 0.1},
    ]
    assert warnings(rows[0]) == warnings(rows[1]) == {}
    won, collapse = first_warnings(rows)
    assert won.startswith("step 200: discriminator accuracy is 99%")
    assert collapse.startswith("step 300: samples differ 10% as much")


def test_rows_cover_the_steps_since_the_one_before():
    assert covered([{"step": 50}, {"step": 60}, {"step": 61}]) == [50, 10, 1]
    assert covered([]) == []


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_divergence(loss: float):
    stop_if_diverged(3, d_loss=0.7, g_loss=-0.1)
    with pytest.raises(DivergedError, match="step 3: g_loss"):
        stop_if_diverged(3, d_loss=0.7, g_loss=loss)


def test_a_collapsed_run_is_told_of():
    heard = Heard()
    settings = GanTraining(arch="mlp-gan", steps=100, rate_generator=0.1)
    train_gan(settings, load_data("digits", "train"), progress=heard)
    (message,) = heard.messages
    assert message.startswith("step 100: samples differ")
    assert "collapsing" in message


def test_nothing_is_said_of_the_default_pair_which_leaves_the_mean_image():
    heard = Heard()
    train_gan(GanTraining(steps=120), load_data("digits", "train"), progress=heard)
    assert heard.messages == []
