import pytest
import torch

from advkit.core import rng
from advkit.data.data import Data
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import build


@pytest.fixture(scope="session")
def judged():
    """(model, data): a small network on 8x8 images, labelled by itself but for two that it gets wrong."""
    with rng.scope("cpu", 1, "judged"):
        network = build("small-cnn", shape=(1, 8, 8), classes=4)
    model = Model(network, ModelCard(role="classifier", architecture="small-cnn", shape=(1, 8, 8), classes=4))
    model.eval()
    images = rng.uniform(torch.arange(30), (1, 8, 8))
    with torch.no_grad():
        logits = model(images)
        last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.bias -= logits.mean(0)
        labels = model(images).argmax(1)
    labels[[4, 9]] = (labels[[4, 9]] + 1) % 4
    return model, Data("toy", "test", images, labels, tuple("abcd"), torch.arange(30))
