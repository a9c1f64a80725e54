"""What can be read is read as it is; what cannot is refused by name."""

import pytest
import torch
from torch import nn

from advkit import rng
from advkit.bounds.ball import Ball
from advkit.bounds.linear import Bounder
from advkit.bounds.read import check, read
from advkit.errors import ModelError
from advkit.models.card import ModelCard, Preprocessing
from advkit.models.load import wrap
from advkit.models.model import Model
from advkit.models.network import ARCHITECTURES, build
from advkit.threat import Threat

CONFIGS = {
    "resnet18-cifar": {"width": 2},
    "trunk-classifier": {"trunk": "dcgan-discriminator"},
    "encoder-classifier": {"encoder": "conv-vae"},
}
CLASSIFIERS = [entry.name for entry in ARCHITECTURES if entry.facts["role"] == "classifier"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_architecture_is_read_and_sound_or_refused_by_name(name):
    with rng.scope("cpu", 0, name):
        network = build(name, shape=(1, 8, 8), classes=3, config=CONFIGS.get(name))
    model = wrap(network).eval()
    x = rng.uniform(torch.arange(2), (1, 8, 8))
    try:
        graph = read(model)
    except ModelError as refusal:
        named = [f"layer {path!r}" for path, _ in network.named_modules() if path]
        assert any(layer in str(refusal) for layer in [*named, "(function "])
        return
    check(graph, model, x)
    threat = Threat("linf", 0.001)
    with torch.no_grad():
        bounds = Bounder(graph, torch.device("cpu")).interval(Ball(x, threat))
        for key in range(3):
            logits = model(threat.sample(x, rng.keys(key, "read", torch.arange(2)))).double()
            assert (bounds.lower[-1] <= logits + 1e-4).all() and (logits <= bounds.upper[-1] + 1e-4).all()


def test_most_architectures_are_read():
    for name in ("mlp", "small-cnn", "lenet", "madry-cnn", "judge-cnn", "resnet18-cifar"):
        model = wrap(build(name, shape=(1, 8, 8), classes=3, config=CONFIGS.get(name))).eval()
        assert read(model).classes == 3


def test_preprocessing_is_the_first_layer():
    card = ModelCard(
        role="classifier",
        architecture="a",
        shape=(2, 3, 3),
        classes=4,
        preprocessing=Preprocessing(pixel_range=(0, 255), mean=(100.0, 50.0), std=(30.0,)),
    )
    model = Model(nn.Sequential(nn.Flatten(), nn.Linear(18, 4)), card).eval()
    graph = read(model)
    assert [node.name for node in graph.nodes] == ["images", "preprocessing", "0", "1"]
    check(graph, model, rng.uniform(torch.arange(5), (2, 3, 3)))


class Squared(nn.Module):
    def forward(self, x):
        return x * x


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Inner(nn.Module):
    def __init__(self, odd):
        super().__init__()
        self.before, self.odd = nn.Flatten(), odd
        self.after = nn.Linear(36, 3)

    def forward(self, x):
        return self.after(self.odd(self.before(x)))


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (nn.Sigmoid(), r"layer 'odd' \(Sigmoid\) cannot be bounded: nothing is known of this kind of layer"),
        (Squared(), r"layer 'odd' \(function mul\) cannot be bounded: a product of two things"),
        (Branch(), r"layer 'odd' \(Branch\) cannot be bounded: its code cannot be traced"),
        (nn.LeakyReLU(-1.0), r"layer 'odd' \(LeakyReLU\) .* its slope -1 is outside \[0, 1\]"),
        (
            nn.BatchNorm1d(36, track_running_stats=False),
            r"layer 'odd' \(BatchNorm1d\) .* no running statistics",
        ),
    ],
    ids=lambda odd: type(odd).__name__,
)
def test_what_cannot_be_read_is_named_with_what_to_do(odd, said):
    with pytest.raises(ModelError, match=said + r".*; replace the layer, or attack the model"):
        read(wrap(Inner(odd), shape=(1, 6, 6)).eval())


def test_what_tracing_does_not_show_is_noticed():
    inner = Inner(nn.Identity())
    inner.after.register_forward_hook(lambda layer, given, result: 2 * result)
    model = wrap(inner, shape=(1, 6, 6)).eval()
    with pytest.raises(ModelError, match="something that tracing its layers does not show"):
        check(read(model), model, rng.uniform(torch.arange(3), (1, 6, 6)))


def test_probabilities_are_refused():
    card = ModelCard(
        role="classifier", architecture="a", shape=(1, 6, 6), preprocessing={"outputs": "probabilities"}
    )
    with pytest.raises(ModelError, match="a softmax cannot be bounded"):
        read(Model(nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Softmax(1)), card).eval())
