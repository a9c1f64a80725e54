"""What passes straight through a layer, what is refused, and which layers stand in the way."""

import threading

import pytest
import torch
from torch import nn

from advkit.core import rng
from advkit.core.errors import ConfigError, ModelError
from advkit.models.bpda import obstacles, straight_through
from advkit.models.card import ModelCard
from advkit.models.model import Model

X = rng.uniform(torch.arange(6), (1, 4, 4))


class Levels(nn.Module):
    """Three bits of each value."""

    bits = 3

    def forward(self, x):
        return (x * 2**self.bits).round() / 2**self.bits


class Asking(nn.Module):
    """Uses an attribute of its layer, and has one that it never calls."""

    def __init__(self):
        super().__init__()
        self.levels, self.idle = Levels(), Levels()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x):
        return self.body(self.levels(x) * self.levels.bits)


def model(network):
    return Model(network, ModelCard(role="classifier", architecture="toy", shape=(1, 4, 4), classes=3)).eval()


def gradient(of, x):
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad((of(x) * torch.arange(3.0)).sum(), x)[0]


@pytest.fixture
def stepped():
    torch.manual_seed(0)
    return model(Asking())


def test_answers_alike_and_has_the_gradient_of_what_is_left(stepped):
    before = [type(layer) for layer in stepped.modules()]
    twin = straight_through(stepped, ["levels"], X)
    assert [type(layer) for layer in stepped.modules()] == before  # the model itself is left as it was
    assert torch.equal(twin(X), stepped(X))
    assert not gradient(stepped, X).any()
    weight = stepped.network.body[1].weight
    expected = (weight * torch.arange(3.0)[:, None]).sum(0).view(1, 1, 4, 4) * 3
    torch.testing.assert_close(gradient(twin, X), expected.expand_as(X))


def test_layers_by_number_and_within_one_another():
    net = model(nn.Sequential(nn.Sequential(Levels(), nn.ReLU(inplace=True)), nn.Flatten(), nn.Linear(16, 3)))
    twin = straight_through(net, ["0", "0.0"], X)
    assert torch.equal(twin(X), net(X))
    assert gradient(twin, X).all()


@pytest.mark.parametrize("name", ["levls", "", "body", "idle"])
def test_what_cannot_be_passed_is_refused(stepped, name):
    with pytest.raises(ConfigError):
        straight_through(stepped, [name], X)


class Other(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


@pytest.mark.parametrize("answer", [lambda x: x.long(), lambda x: (x, x), lambda x: x[:3]])
def test_what_makes_something_else_is_refused(answer):
    net = model(nn.Sequential(Other(answer), Other(lambda x: X), nn.Flatten(), nn.Linear(16, 3)))
    with pytest.raises(ConfigError):
        straight_through(net, ["0"], X)


def test_what_cannot_be_copied_is_refused(stepped):
    stepped.network.lock = threading.Lock()
    with pytest.raises(ModelError):
        straight_through(stepped, ["levels"], X)
    many = model(nn.Sequential(*[nn.Identity() for _ in range(14)]))
    with pytest.raises(ConfigError, match=r"10, 11, \.\.\.$"):
        straight_through(many, ["x"], X)
    with pytest.raises(ConfigError, match=r"10, 11$"):
        straight_through(model(many.network[:12]), ["x"], X)


class Silent(nn.Module):
    """Lets no gradient through for the first so many images; or none at all, or is given more than one."""

    def __init__(self, count, way="quiet"):
        super().__init__()
        self.count, self.way = count, way

    def forward(self, x, more=None):
        if self.way == "cut":
            return x.detach() * 2
        return (
            torch.cat([x[: self.count].detach(), x[self.count :] * 2]) if self.way == "quiet" else x.round()
        )


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Silent(0, "two")

    def forward(self, x):
        return self.inner(x, x)


@pytest.mark.parametrize(
    ("layer", "n", "found"),
    [
        (nn.ReLU(), 6, []),
        (Levels(), 6, ["0"]),
        (Levels(), 1, ["0"]),
        (Silent(3), 6, []),
        (Silent(4), 6, ["0"]),
        (Silent(0, "cut"), 6, ["0"]),
        (Pair(), 6, ["0"]),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), Levels()), 6, ["0.1"]),
        (nn.Sequential(Levels(), nn.Sequential(nn.Identity(), Levels())), 6, ["0.0", "0.1.1"]),
        (nn.Sequential(nn.Flatten(), nn.Softmax(1)), 6, []),
        (nn.Sequential(nn.Conv2d(1, 2, 3), Levels(), nn.Conv2d(2, 1, 3, padding=2)), 6, ["0.1"]),
    ],
)
def test_obstacles_are_found_where_they_are(layer, n, found):
    net = model(nn.Sequential(layer, nn.Flatten(), nn.Linear(16, 3)))
    assert obstacles(net, X[:n]) == found
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
