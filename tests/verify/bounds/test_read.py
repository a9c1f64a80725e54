"""What can be read is read as what it computes; what cannot is refused by name."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional

from advkit.core import rng
from advkit.core.errors import ModelError
from advkit.core.threat import Threat
from advkit.models.card import ModelCard
from advkit.models.inspect import inspect_classifier
from advkit.models.load import wrap
from advkit.models.model import Model
from advkit.models.network import ARCHITECTURES, build
from advkit.verify.bounds.ball import Ball
from advkit.verify.bounds.interval import interval_bounds, margins_at_last
from advkit.verify.bounds.linear import Bounder
from advkit.verify.bounds.read import check, read
from advkit.verify.certification.prove import Prover

CPU = torch.device("cpu")


def test_what_is_read_is_what_is_computed(networks, piece, float64):
    """In float64, so that only arithmetic is left; between equal ends there is no other value."""
    for number in range(16):
        model, x = networks.network(1000 + number, piece, scales=number % 4 == 0)
        x, model = x.double(), model.train(number % 2 == 0)
        graph = read(model)
        check(graph, model, x)
        assert model.network.training == (number % 2 == 0)
        meant = model.eval()(x)
        near = 1e-10 * meant.abs().max().clamp(min=1e-30)
        for said in (graph.forward(x), *(side[-1] for side in interval_bounds(graph, x, x))):
            assert ((said - meant).abs() <= near).all()
        paths = {name for name, _ in model.network.named_modules()} | {"preprocessing", "logits"}
        assert graph.nodes[0].name == "images"
        assert all(
            node.name.removeprefix("function ") in paths or "function" in node.name
            for node in graph.nodes[1:]
        )


def test_gradients_reach_the_parameters_that_a_graph_follows():
    with rng.scope("cpu", 1, "trained"):
        layers = nn.Conv2d(2, 2, 2), nn.BatchNorm2d(2), nn.LeakyReLU(), nn.Flatten(), nn.Linear(12, 3)
    model, x = wrap(nn.Sequential(*layers), shape=(2, 3, 4)).eval(), some_images(2, 3, 4)
    graph, label = read(model), torch.tensor([0, 1, 2])
    worst = -margins_at_last(graph, *interval_bounds(graph.body, x - 0.1, x + 0.1), label)
    functional.cross_entropy(worst, label).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with torch.no_grad():
        next(model.parameters()).mul_(2)
        assert torch.allclose(graph.forward(x), model(x), atol=1e-4)
        assert graph.classes == 3 and len(graph.body) == len(graph) - 1


class Odd(nn.Module):
    """Arguments with defaults, more that are left out, and layers on constants."""

    def __init__(self):
        super().__init__()
        self.end, self.inner, self.constant = (
            nn.Linear(24, 3),
            nn.Linear(4, 24),
            nn.Parameter(some_images(4)[0]),
        )

    def forward(self, x, factor=2.0, *labels):
        return self.end(x.float().flatten(1) * factor - torch.sigmoid(self.inner(self.constant)).abs())


def some_images(*shape):
    return rng.uniform(torch.arange(3), shape)


class Pooled(nn.Module):
    """Borders count in a mean unless something else is said."""

    def forward(self, x):
        return functional.avg_pool2d(x, 3, 2, 1).flatten(1)


@pytest.mark.parametrize("make", [Odd, Pooled, nn.Flatten])
def test_unusual_ways_are_read_too(make):
    model = wrap(make(), shape=(1, 1, 3) if make is nn.Flatten else (2, 3, 4)).eval()
    graph = read(model)
    x = some_images(*model.card.shape)
    assert torch.allclose(graph.forward(x), model(x), atol=1e-6)
    assert len(graph.nodes[-1].shape) == 1


REFUSED = {
    "softplus": nn.Softplus(),
    "slope below": nn.LeakyReLU(-0.1),
    "slope above": nn.LeakyReLU(1.1),
    "batch's own statistics": nn.BatchNorm2d(2, track_running_stats=False),
    "uneven in height": nn.Conv2d(2, 2, (2, 3), padding="same"),
    "uneven in width": nn.Conv2d(2, 2, (3, 2), padding="same"),
    "padded otherwise": nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
    "places": nn.MaxPool2d(2, return_indices=True),
    "padding alone": nn.MaxPool2d(2, 1, padding=1, dilation=(4, 1)),
    "planes": nn.Linear(4, 2),
    "product": lambda s, x: x * x,
    "branch": lambda s, x: x if x.sum() > 0 else -x,
    "mean of all": lambda s, x: x.mean(),
    "mean of images": lambda s, x: x.mean((0, 2, 3)),
    "numbers for all images": lambda s, x: x.flatten(1)[:, :2] + x.sum((1, 2, 3)),
    "first image": lambda s, x: x[:1],
    "parts by values": lambda s, x: torch.index_select(x, 1, x[0, 0, 0]),
    "padded batch": lambda s, x: functional.pad(x, (0, 0, 0, 0, 0, 0, 1, 1)),
    "ends of values": lambda s, x: torch.clamp(x, torch.zeros(4), torch.ones(4)),
    "beyond": lambda s, x: x.narrow(1, 1, 2),
    "mixed images": lambda s, x: x.view(1, -1),
    "attribute": lambda s, x: 1 - x.mT,
    "dropout": lambda s, x: functional.dropout(x),
    "cat of images": lambda s, x: torch.cat([x, x]),
    "cat with constants": lambda s, x: torch.cat([x, torch.zeros(2, 2, 3, 4)], 1),
    "chunks of images": lambda s, x: x.chunk(2)[0],
    "sum with a factor": lambda s, x: torch.add(x, x, alpha=2),
    "difference with a factor": lambda s, x: torch.sub(x, x, alpha=2),
    "shapes": lambda s, x: x + x[:, :, :, :3],
    "divided by values": lambda s, x: 1 / x,
    "rounded": lambda s, x: torch.div(x, 2, rounding_mode="floor"),
    "of one image": lambda s, x: x + torch.arange(2.0).view(2, 1, 1, 1),
    "of another shape": lambda s, x: x + torch.ones(5),
    "function": lambda s, x: torch.exp(x),
    "keyword": lambda s, x: torch.relu(input=x),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named(networks, name):
    odd = REFUSED[name]
    odd = odd if isinstance(odd, nn.Module) else networks.Call(odd)
    layers = nn.Sequential(OrderedDict(far=nn.Sequential(OrderedDict(odd=odd)), end=nn.Flatten()))
    with pytest.raises(ModelError, match=r"layer 'far.odd'") as refused:
        read(wrap(layers, shape=(2, 3, 4)).eval())
    assert name != "planes" or "(2, 3, 4)" in str(refused.value)
    assert name != "function" or "function exp)" in str(refused.value)


def test_a_node_has_the_name_of_the_layer_that_makes_it(networks):
    odd = networks.Call(lambda s, x: torch.relu(x))
    layers = nn.Sequential(OrderedDict(far=nn.Sequential(OrderedDict(odd=odd)), end=nn.Flatten()))
    names = [node.name for node in read(wrap(layers, shape=(2, 3, 4)).eval()).nodes]
    assert names == ["images", "far.odd", "end"]


@pytest.mark.parametrize("outputs", ["logits", "probabilities", "branch"])
def test_networks_are_refused_as_a_whole(networks, outputs):
    """For planes in place of logits, for probabilities, and for a branch of their own."""
    branch = networks.Call(lambda s, x: x.flatten(1) if x.sum() > 0 else -x.flatten(1))
    network = {"logits": nn.ReLU(), "probabilities": nn.Flatten(), "branch": branch}[outputs]
    about = {"role": "classifier", "architecture": "a", "shape": (1, 1, 3)}
    seen = {"outputs": outputs} if network is not branch else {}
    with pytest.raises(ModelError):
        read(Model(network, ModelCard(**about, preprocessing=seen)).eval())


@pytest.mark.parametrize(
    ("wrapped", "classes"),
    [
        (lambda z, x: (z, torch.relu(x)), 3),  # which comes after them
        (lambda z, x: {"features": x, "deep": [z]}, 3),
        (lambda z, x: z[:, :, None, None], 3),
        (lambda z, x: z, 1),
        (lambda z, x: {"logits": z.squeeze(1)}, 1),
    ],
)
def test_logits_are_read_where_the_model_finds_them(networks, wrapped, classes):
    network, linear = networks.Call(lambda s, x: wrapped(s.linear(x.flatten(1)), x)), nn.Linear(12, classes)
    network.linear = linear
    nn.init.constant_(linear.weight, 0.5)
    nn.init.constant_(linear.bias, 2.0)  # one logit from 0 to 1 would be taken for a probability
    model = wrap(network, shape=(3, 2, 2), classes=max(classes, 2)).eval()
    x = torch.linspace(0, 1, 48).view(4, 3, 2, 2)
    inspect_classifier(model, x, None)
    graph = read(model)
    check(graph, model, x)
    assert graph.classes == max(classes, 2)
    assert torch.equal(graph.forward(x)[:, -1], linear(x.flatten(1))[:, -1])


ENDS = {
    "item": lambda z: z[:, 1],
    "part": lambda z: z[:, 1:2].squeeze(1).unsqueeze(-1),
    "select": lambda z: z.select(1, 2) * 2 - 1,
    "difference": lambda z: (z[:, 0] - z[:, 2]).relu() - 0.1,
    "sum": lambda z: z.sum(1),
    "mean": lambda z: z.mean((1,)).view(-1, 1),
    "stacked": lambda z: torch.stack([z[:, 2], z[:, 0]], 1),
    "stacked at the end": lambda z: torch.stack([z[:, 2], z[:, 0]], -1),
    "without offset": lambda z: z - z.mean(1, keepdim=True),
    "one for all": lambda z: z + z[:, :1],
}


@pytest.mark.parametrize("name", ENDS)
def test_single_numbers_of_an_image_are_bounded_as_they_are(networks, name):
    """Exactly, since no ReLU is open: the bound of a linear function on a box."""
    with rng.scope("cpu", 2, "ends"):
        linear = nn.Linear(12, 3)
    network = networks.Call(lambda s, x: ENDS[name](s.linear(x.flatten(1))))
    network.linear = linear
    x, threat = some_images(3, 2, 2), Threat("linf", 0.01)
    classes = max(2, network(x).view(3, -1).shape[1])
    model = wrap(network, shape=(3, 2, 2), classes=classes).eval()
    inspect_classifier(model, x, classes)
    graph = read(model)
    check(graph, model, x)
    assert all(node.shape for node in graph.nodes) and graph.classes == classes
    label = model(x).argmax(1)
    proof = Prover(graph, threat, "optimised", CPU).prove(x, label)
    for k in range(len(x)):
        z = x[k : k + 1].double().requires_grad_(True)
        logits = model.double()(z)[0]
        gaps = [logits[label[k]] - other for j, other in enumerate(logits) if j != label[k]]
        slopes = [torch.autograd.grad(gap, z, retain_graph=True)[0] for gap in gaps]
        least = min(
            gap.item() - 0.01 * slope.abs().sum().item() for gap, slope in zip(gaps, slopes, strict=True)
        )
        assert float(proof.margin[k] + proof.rounding[k]) == pytest.approx(least, abs=1e-4)


def test_what_a_graph_does_not_show_is_noticed():
    layers = nn.Sequential(nn.Flatten(), nn.Linear(24, 3))
    model, x = wrap(layers, shape=(2, 3, 4)).eval(), some_images(2, 3, 4)
    for size in (1e-3, 1.0, 1e3):
        layers[1].weight.data.mul_(size)
        layers[1].bias.data.mul_(size)
        graph = read(model)
        for change in (5e-4, -5e-4, 1.5e-3, -1.5e-3, torch.nan):
            hook = layers[1].register_forward_hook(lambda m, a, y, by=1 + change: y * by)
            if abs(change) < 1e-3:
                check(graph, model, x)
            else:
                with pytest.raises(ModelError):
                    check(graph, model, x)
            hook.remove()
    layers[1].weight.data.zero_()
    layers[1].bias.data.zero_()
    check(read(model), model, x)  # all are 0


CONFIGS = {
    "resnet18-cifar": {"width": 2},
    "trunk-classifier": {"trunk": "dcgan-discriminator"},
    "encoder-classifier": {"encoder": "conv-vae"},
}
READ = {"mlp", "small-cnn", "lenet", "madry-cnn", "judge-cnn", "resnet18-cifar"}


@pytest.mark.parametrize("name", [e.name for e in ARCHITECTURES if e.facts["role"] == "classifier"])
def test_every_architecture_is_read_and_sound_or_refused_by_name(name):
    with rng.scope("cpu", 0, name):
        network = build(name, shape=(1, 8, 8), classes=3, config=CONFIGS.get(name))
    model, x, threat = wrap(network).eval(), some_images(1, 8, 8), Threat("linf", 0.001)
    try:
        graph = read(model)
    except ModelError as refusal:
        named = [f"layer {path!r}" for path, _ in network.named_modules() if path]
        assert any(layer in str(refusal) for layer in [*named, "(function "]) and name not in READ
        return
    check(graph, model, x)
    with torch.no_grad():
        bounds = Bounder(graph, CPU).interval(Ball(x, threat))
        logits = model(threat.sample(x, rng.keys(0, "read", torch.arange(3)))).double()
        assert (bounds.lower[-1] <= logits + 1e-4).all() and (logits <= bounds.upper[-1] + 1e-4).all()
