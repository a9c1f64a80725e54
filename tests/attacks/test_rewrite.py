"""Networks rewritten for speed are the same functions."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from advkit import load_model
from advkit.attacks.engine.rewrite import rewritten
from advkit.attacks.engine.search_model import SearchModel, search_model
from advkit.core import rng
from advkit.models.card import ModelCard
from advkit.models.model import Model
from advkit.models.network import ARCHITECTURES, build


@pytest.fixture
def x():
    return rng.uniform(torch.arange(20), (3, 8, 8))


def sequential(*layers):
    with rng.scope("cpu", 0, "layers"):
        network = nn.Sequential(nn.Conv2d(3, 6, 3), *layers, nn.Flatten(), nn.LazyLinear(4))
        network.train()(torch.rand(30, 3, 8, 8))  # so that the batch norms have seen something
    return network.eval()


class Plain(nn.Module):
    """Calls functions where others have layers."""

    def __init__(self, forward):
        super().__init__()
        with rng.scope("cpu", 0, "plain"):
            self.first, self.norm, self.last = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(54, 4)
        self.body = forward

    def forward(self, x):
        return self.last(self.body(self, x).flatten(1))


def pooled(self, x):
    return functional.max_pool2d(torch.relu(self.norm(self.first(x))), 2)


def pooled_in_place(self, x):
    return functional.max_pool2d(functional.relu(self.first(x), inplace=True), 2)


def read_twice(self, x):
    y = self.first(x)
    return functional.max_pool2d(y.relu(), 2) + functional.avg_pool2d(y, 2)


def called_twice(self, x):
    return functional.max_pool2d(self.norm(self.first(x)) + self.first(x.flip(3)), 2)


def normed_and_plain(self, x):
    y = self.first(x)
    return functional.max_pool2d(self.norm(y) + y, 2)


def rectified_and_read_twice(self, x):
    y = torch.relu(self.first(x))
    return functional.max_pool2d(y, 2) + functional.avg_pool2d(y, 2)


def rectified_in_place_and_read(self, x):
    y = self.first(x)
    return functional.max_pool2d(functional.relu(y, inplace=True), 2) + functional.avg_pool2d(y, 2)


FOLDED = [
    (sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2, padding=1)), 0),
    (sequential(nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)), 0),
    (sequential(nn.ReLU(), nn.BatchNorm2d(6)), 1),
    (sequential(nn.MaxPool2d((2, 3))), 0),  # 6x6 pixels
    (sequential(nn.MaxPool2d(4)), 0),  # two rows and columns are in no window
    (sequential(nn.MaxPool2d(4, ceil_mode=True)), 0),
    (sequential(nn.MaxPool2d(2, dilation=2)), 0),
    (Plain(pooled).eval(), 0),
    (Plain(pooled_in_place).eval(), 0),
    (Plain(read_twice).eval(), 0),
    (Plain(called_twice).eval(), 1),
    (Plain(normed_and_plain).eval(), 1),
    (Plain(rectified_and_read_twice).eval(), 0),
    (Plain(rectified_in_place_and_read).eval(), 0),
    (sequential(nn.BatchNorm2d(6, track_running_stats=False), nn.MaxPool2d(2)), 1),
]


@pytest.mark.parametrize(("network", "norms"), FOLDED)
def test_the_same_answers_and_gradients_with_fewer_layers(network, norms, x):
    twin = rewritten(network)
    assert (
        sum(
            node.op == "call_module" and "BatchNorm" in type(twin.get_submodule(node.target)).__name__
            for node in twin.graph.nodes
        )
        == norms
    )
    slopes = []
    for model in (network, twin):
        at = x.clone().requires_grad_(True)
        logits = model(at)
        slopes.append(torch.autograd.grad(logits.square().sum(), at)[0])
    assert torch.allclose(network(x), twin(x), atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(network(x), twin(x), atol=1e-5)
    assert torch.allclose(*slopes, atol=1e-4)


def test_relu_works_on_what_the_pooling_leaves(x):
    names = [node.name for node in rewritten(Plain(pooled).eval()).graph.nodes]
    assert names.index("tiles_max_pool2d") < names.index("relu")


def test_of_equal_values_a_gradient_follows_the_first():
    at = torch.zeros(2, 1, 4, 5, requires_grad=True)
    (slope,) = torch.autograd.grad(rewritten(nn.Sequential(nn.MaxPool2d(2)).eval())(at).sum(), at)
    assert (
        torch.equal(slope.nonzero(), (slope == 1).nonzero())
        and slope[:, 0, ::2, :4:2].sum() == slope.sum() == 8
    )


def noisy(self, x):
    return functional.max_pool2d(self.first(x) + 1e-4 * torch.rand(1), 2)


def branching(self, x):
    return functional.max_pool2d(self.first(x) if x.mean() > 0 else x, 2)


def cut(self, x):
    with torch.no_grad():
        coarse = (x * 8).round() / 8 - x
    return functional.max_pool2d(self.first(x) + self.first(x + coarse), 2)


def scaled(body, scale):
    network = Plain(body).eval()
    network.last.requires_grad_(False).weight.mul_(scale), network.last.bias.mul_(scale)
    return network


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("body", [noisy, branching, cut])
def test_what_tracing_would_change_is_searched_as_it_is(body, scale, x):
    network = scaled(body, scale)
    with rng.scope("cpu", 0, "draws"):  # two draws that round alike would tell nothing
        twin = search_model(network, "float32", x, "gradients")
    assert isinstance(twin, SearchModel)
    assert isinstance(twin.model, Plain)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_what_can_be_traced_is_searched_rewritten(scale, x):
    twin = search_model(scaled(pooled, scale), "float32", x, "gradients")
    assert isinstance(twin, SearchModel)
    assert isinstance(twin.model, torch.fx.GraphModule)


class WithOptions(Plain):
    """Takes more than images, as many networks do."""

    def forward(self, x, scale=2, *more, **named):
        return super().forward(x) * scale


@pytest.mark.parametrize("mean", [(), (0.5, 0.4, 0.3)])
@pytest.mark.parametrize("kind", [Plain, WithOptions])
def test_a_loaded_model_is_searched_rewritten(kind, mean, x):
    network = kind(pooled).eval()
    model = load_model(network, role="classifier", shape=(3, 8, 8), mean=mean, std=[0.2] * len(mean))
    twin = search_model(model.eval(), "float32", x, "gradients")
    assert isinstance(twin, SearchModel) and isinstance(twin.model, torch.fx.GraphModule)
    assert torch.allclose(twin(x), model(x), atol=1e-5)


CLASSIFIERS = [
    entry.name
    for entry in ARCHITECTURES
    if entry.facts["role"] == "classifier" and not {"trunk", "encoder"} & {*entry.thing.Config.model_fields}
]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_architecture_is_searched_rewritten(name):
    shape = (3, 32, 32)
    card = ModelCard(role="classifier", architecture=name, shape=shape, classes=10)
    with rng.scope("cpu", 0, "architecture"):
        model = Model(build(name, shape=shape, classes=10), card).eval()
        images = torch.rand(16, *shape)
    twin = search_model(model, "float32", images, "scores")
    assert isinstance(twin, SearchModel) and isinstance(twin.model, torch.fx.GraphModule)


class Bare(nn.Module):
    """No layer without parameters stands between the convolution and what is never rounded."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.LazyConv2d(4, 3), nn.LazyLinear(3)

    def forward(self, x):
        return self.last(self.conv(x).flatten(1) + (0 if x.sum() > -1 else 1))  # a branch: as it is


def test_layers_that_are_not_rounded_are_given_float32(x):
    network = Bare().eval()
    network(x)
    twin = search_model(network, "bfloat16", x, "gradients")
    assert isinstance(twin, SearchModel) and twin.dtype == torch.bfloat16
    assert torch.allclose(twin(x), network(x), atol=0.05)


def test_only_for_gradients_hidden_linear_layers_are_rounded_too(x):
    network = sequential(nn.ReLU(), nn.Flatten(), nn.LazyLinear(8), nn.ReLU())
    kinds = {}
    for access in ("gradients", "scores"):
        twin = search_model(network, "bfloat16", x, access)
        kinds[access] = [layer.weight.dtype for layer in twin.modules() if isinstance(layer, nn.Linear)]
        assert torch.allclose(twin(x), network(x), atol=0.05)
    assert kinds["gradients"] == [torch.bfloat16, torch.float32]
    assert kinds["scores"] == [torch.float32, torch.float32]
