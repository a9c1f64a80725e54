"""The monitor sees a collapse and says nothing of a good run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from advkit import rng
from advkit.data.load import load_data
from advkit.errors import DivergedError
from advkit.gan.best import BEST, Best
from advkit.gan.monitor import Monitor, covered, diversity, first_warnings, warnings
from advkit.gan.plan import GanTraining
from advkit.gan.train import train_gan
from advkit.models.architectures.mlp_gan import DenseGenerator
from advkit.models.checkpoint import load_checkpoint
from advkit.progress import Progress
from advkit.runs import RunFolder


class Heard(Progress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def say(self, message: str) -> None:
        self.messages.append(message)


def test_diversity_is_the_mean_distance():
    images = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]).view(3, 1, 1, 2)
    assert diversity(images) == pytest.approx(10 / 3)


def digits(n: int, split: str = "train") -> tuple[Tensor, Tensor]:
    return load_data("digits", split).batch(torch.arange(n))


def test_real_images_are_told_as_such():
    monitor = Monitor(*digits(300))
    images, _ = digits(300, "test")
    told = monitor.look(images)
    assert 0.9 < told["diversity"] < 1.1
    assert told["coverage"] > 0.5
    assert told["missing"] == []
    assert told["fid"] < monitor.look(1 - images)["fid"] / 5


def test_images_of_one_kind_lack_diversity_coverage_and_digits():
    images, labels = digits(400)
    monitor = Monitor(images, labels)
    ones = images[labels == 1]
    told = monitor.look(ones)
    assert told["coverage"] < 0.2
    assert set(told["missing"]) >= {0, 2, 3, 5, 6}
    assert 1 not in told["missing"]
    assert monitor.look(ones[:1].expand(100, -1, -1, -1))["diversity"] == 0
    assert "missing" in warnings({"step": 1, "diversity": 0.9, **{"missing": told["missing"]}})


def test_one_image_a_class_lacks_diversity_within_classes():
    images, labels = digits(300)
    monitor = Monitor(images, labels)
    first = torch.stack([images[labels == label][0] for label in labels])
    told = monitor.look(first, labels)
    assert told["diversity"] > 0.8 and told["diversity_within"] == 0
    assert "of a class" in warnings(told)["collapse"]
    told = monitor.look(*digits(300, "test"))
    assert 0.9 < told["diversity_within"] < 1.1 and "collapse" not in warnings(told)
    assert "diversity_within" not in monitor.look(images[:10], torch.arange(10))  # no pair of one class
    assert "diversity_within" not in Monitor(images[:1].expand(9, -1, -1, -1), labels[:9]).look(
        images, labels
    )


def test_where_the_judge_cannot_read_nothing_is_said_of_digits():
    noise = rng.uniform(torch.arange(60), (1, 8, 8))
    assert "missing" not in Monitor(noise, torch.arange(60) % 10).look(noise)
    wide = rng.uniform(torch.arange(60), (4, 8, 8))
    assert Monitor(wide, torch.arange(60) % 10).look(wide)["fid"] < 1e-3


def test_looking_at_samples_leaves_the_training_alone(config, tmp_path):
    """A run that looks often ends with the weights of one that looks once."""
    data = load_data("digits", "train", limit=100)
    often, once = (
        train_gan(config(arch="conv-gan", steps=12, sample_every=every), data).models["generator"].hash
        for every in (2, 12)
    )
    assert often == once


def test_the_best_average_is_kept_and_a_resumed_run_knows_it(config, tmp_path, monkeypatch):
    data = load_data("digits", "train", limit=200)
    settings = config(steps=12, sample_every=3, checkpoint_every=6)
    worse = iter([5.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("advkit.gan.monitor.frechet", lambda a, b: next(worse))
    with RunFolder.open("gan-train", "toy", settings, tmp_path / "run") as run:
        train_gan(settings, data, run=run)
        assert [row["fid"] for row in run.history() if "fid" in row] == [5.0, 2.0, 3.0, 4.0]
        assert load_checkpoint(run.path / BEST).card.training["step"] == 6
        better = Best("fid", run)
        assert better.rank == -2.0


@pytest.fixture
def collapsed(monkeypatch):
    """Every latent vector is the same, so that samples are equal whatever is learnt."""
    monkeypatch.setattr(DenseGenerator, "draw", lambda self, key: torch.zeros(len(key), self.latent_dim))


def test_a_run_can_stop_on_a_collapse(collapsed, config):
    settings = config(arch="mlp-gan", steps=12, sample_every=4, stop_on_collapse=True)
    with pytest.raises(DivergedError, match=r"has collapsed at step 4, .* best\.safetensors"):
        train_gan(settings, load_data("digits", "train"))


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


def test_a_collapsed_run_is_warned_of_once(collapsed, config):
    heard = Heard()
    settings = config(arch="mlp-gan", steps=12, sample_every=4)
    train_gan(settings, load_data("digits", "train"), progress=heard)
    (message,) = [message for message in heard.messages if "collapsing" in message]
    assert message.startswith("step 4: samples differ 0% as much as real images")


def test_the_default_pair_is_not_called_collapsed_while_it_leaves_the_mean_image():
    """Samples of seeds 0 to 2 differ 49 to 63 % as much as real images then; 40 % is a collapse."""
    heard = Heard()
    settings = GanTraining(steps=40, batch_size=32, sample_every=20)
    train_gan(settings, load_data("digits", "train"), progress=heard)
    assert not any("collapsing" in message for message in heard.messages)
