"""Gaussians as a control of generated data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from advkit.commands.gan_sample import run as sample
from advkit.core import rng
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError
from advkit.data.load import as_data, load_data
from advkit.gan.gaussian import gaussians
from advkit.gan.sample import sample as draw
from advkit.gan.settings import Sampling


@pytest.fixture
def data():
    """Two classes of correlated pixels, well inside [0, 1]; a third with three images alone."""
    ids, labels = torch.arange(303), torch.cat([torch.arange(300) % 2, torch.full((3,), 2)])
    base = rng.normal(rng.keys(0, "gaussian", ids), (3,))
    x = torch.stack([base[:, 0], base[:, 0] + base[:, 1], base[:, 2], -base[:, 2]], 1) * 0.05
    return as_data((x.view(-1, 1, 2, 2) + 0.4 + 0.1 * labels[:, None, None, None], labels))


def test_it_has_the_mean_and_the_covariance_of_each_class(data):
    model = gaussians(data)
    network = model.network
    assert (network.latent_dim, model.card.classes, model.card.data) == (4, 3, data.facts)
    for label in range(3):
        rows = data.batch((data.labels == label).nonzero()[:, 0])[0].flatten(1)
        torch.testing.assert_close(network.mean[label], rows.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            network.factor[label] @ network.factor[label].T, rows.T.cov(), rtol=1e-3, atol=1e-6
        )
    labels = torch.ones(4000).long()
    drawn, _ = draw(model, 4000, labels=labels)
    rows = drawn.flatten(1) / 255
    torch.testing.assert_close(rows.mean(0), network.mean[1], rtol=0, atol=0.005)
    torch.testing.assert_close(rows.T.cov(), network.factor[1] @ network.factor[1].T, rtol=0.2, atol=3e-4)


def test_few_images_leave_a_covariance_of_their_rank(data):
    factor = gaussians(data).network.factor[2]
    assert int(torch.linalg.matrix_rank(factor, tol=1e-4)) <= 2 < factor.shape[1]
    with pytest.raises(DataError):
        gaussians(data.limit(301))  # one image of the third class


def test_the_command_draws_classes_in_turn():
    for said in ({}, {"model": "gen.pt", "gaussian": "digits"}):
        with pytest.raises(ConfigError):
            validate(Sampling, said, "test")
    outcome = sample(Sampling(gaussian="digits", n=200, labels=True), Context(out=Path("more.npz")))
    assert outcome.result["model"]["architecture"] == "gaussian-generator"
    saved = np.load("more.npz")
    assert saved["x"].shape == (200, 1, 8, 8) and saved["y"].tolist() == list(range(10)) * 20
    real = load_data("digits", "train")
    means = torch.stack([real.batch((real.labels == k).nonzero()[:, 0])[0].mean(0) for k in range(10)])
    x = torch.from_numpy(saved["x"]).float() / 255
    nearest = torch.cdist(x.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == torch.from_numpy(saved["y"])).float().mean() > 0.7
    assert load_data("npz:more.npz", "train").class_names == real.class_names
