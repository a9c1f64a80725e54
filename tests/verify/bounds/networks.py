"""Random classifiers made of everything that `advkit.verify.bounds.read` reads, with every option of each."""

import operator
import random

import torch
from torch import nn
from torch.nn import functional

from advkit.core import rng
from advkit.models.card import ModelCard
from advkit.models.model import Model


class Call(nn.Module):
    """``call(self, x)``, where ``parts`` are layers and tensors of its own."""

    def __init__(self, call, **parts):
        super().__init__()
        self.call = call
        for name, part in parts.items():
            self.register_buffer(name, part) if isinstance(part, torch.Tensor) else setattr(self, name, part)

    def forward(self, x):
        return self.call(self, x)


class Draw(random.Random):
    """What is chosen for one network."""

    def two(self, low, high):
        return (self.randint(low, high), self.randint(low, high))

    def some(self, low, high):
        """An int, or a pair of two."""
        return self.choice([self.randint(low, high), self.two(low, high)])

    def flip(self):
        return self.random() < 0.5


def conv(d, shape):
    groups = d.choice([g for g in (1, 2, 3) if shape[0] % g == 0])
    padding = d.choice(["valid", "same", d.some(0, 2), d.two(0, 2)])
    kernel, stride, dilation = d.two(1, 3), d.some(1, 2), d.two(1, 2)
    if padding == "same":  # an odd sum is uneven, which is not read
        stride, kernel = 1, tuple(kernel[i] - (kernel[i] == 2 and dilation[i] == 1) for i in (0, 1))
    rest = (stride, padding, dilation, groups)
    layer = nn.Conv2d(shape[0], groups * d.randint(1, 2), kernel, *rest, bias=d.flip())
    call = d.choice([functional.conv2d, torch.conv2d])
    whole = Call(lambda s, x: call(x, s.layer.weight, s.layer.bias, *rest), layer=layer)
    short = Call(lambda s, x: call(x, s.layer.weight), layer=nn.Conv2d(shape[0], 2, kernel))
    return d.choice([layer, layer, whole, whole, short])


def max_pool(d, shape):
    kernel, stride, ceil = d.some(1, 3), d.choice([None, d.some(1, 2)]), d.flip()
    rest, call = (d.some(0, 1), d.some(1, 2)), d.choice([functional.max_pool2d, torch.max_pool2d])
    short = Call(lambda s, x: call(x, kernel))
    whole = Call(lambda s, x: call(x, kernel, stride or kernel, *rest, ceil))
    return d.choice([nn.MaxPool2d(kernel, stride, *rest, ceil_mode=ceil), short, whole])


def avg_pool(d, shape):
    args = (d.some(1, 3), d.choice([None, d.some(1, 2)]), d.some(0, 1), d.flip(), d.flip())
    args = (*args, d.choice([None, None, 1, 3, -2]))[: d.choice([1, 3, 6])]
    return d.choice([nn.AvgPool2d(*args), Call(lambda s, x: functional.avg_pool2d(x, *args))])


def adaptive(d, shape):
    size = d.choice([d.randint(1, 3), (None, d.randint(1, 3)), [d.randint(1, 3), None], d.two(1, 4)])
    call = Call(lambda s, x: functional.adaptive_avg_pool2d(x, size))
    return d.choice([nn.AdaptiveAvgPool2d(size), call])


def norm(d, shape):
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return kind(shape[0], eps=d.choice([1e-5, 0.1]), affine=d.flip())


def relu(d, shape):
    calls = [torch.relu, functional.relu, lambda x: x.relu(), lambda x: torch.relu_(x.clone())]
    calls += [lambda x: x.clone().relu_(), lambda x: functional.relu(x.clone(), inplace=True)]
    call = d.choice(calls)
    return d.choice([nn.ReLU(), Call(lambda s, x: call(x))])


def leaky(d, shape):
    slopes = d.choice([(), (0.0,), (0.3,), (1.0,)])
    return d.choice([nn.LeakyReLU(*slopes), Call(lambda s, x: functional.leaky_relu(x, *slopes))])


def constant(d, shape):
    """x and a constant on either side."""
    sizes = [(), shape, (1, *shape), (shape[0], *[1] * (len(shape) - 1)), shape[-1:]]
    c = (0.5 + torch.rand(d.choice(sizes))) * d.choice([2, -2])
    call = d.choice([operator.add, operator.sub, operator.mul, torch.add, torch.sub, torch.mul])
    place = d.choice(["iadd", "isub", "imul", "itruediv"])
    method = d.choice(["add", "sub", "mul", "div", "add_", "sub_", "mul_", "div_"])
    kinds = [
        lambda s, x: call(s.c, x),
        lambda s, x: call(x, s.c),
        lambda s, x: 1 - 2 * x,
        lambda s, x: 3 + x / 0.3 - 1,
        lambda s, x: getattr(x.clone(), method)(s.c),
        lambda s, x: getattr(operator, place)(x.clone(), s.c),
        lambda s, x: torch.div(-x, s.c.abs()),
        lambda s, x: torch.neg(x.neg() + 1),
    ]
    return Call(d.choice(kinds), c=c)


def parts(d, shape):
    """Chunks in another order, one of them changed."""
    many, dim, cat, method = (
        d.randint(2, 3),
        d.choice([1, -len(shape)]),
        d.choice([torch.cat, torch.concat]),
        d.flip(),
    )

    def call(s, x):
        pieces = x.chunk(many, dim) if method else torch.chunk(x, many, dim=dim)
        return cat([pieces[-1], 2 * pieces[0], x], dim)

    return Call(call if shape[0] > 1 else lambda s, x: torch.cat((x, x.relu()), dim))


def moved(d, shape):
    """Other orders, and parts of unequal length."""
    rank = len(shape)
    dim, other, order = d.randint(1, rank), d.randint(1, rank), [0, *d.sample(range(1, rank + 1), rank)]
    size = shape[dim - 1]
    first, places = d.randrange(size), torch.tensor([d.randrange(size) for _ in range(d.randint(1, 3))])
    lengths = [first, size - first] if first else [size]
    calls = [
        lambda s, x: x.permute(order),
        lambda s, x: torch.permute(x, order),
        lambda s, x: x.transpose(dim, other),
        lambda s, x: torch.movedim(x.flip(dim), other, dim),
        lambda s, x: torch.index_select(x.roll(1, dim), dim, s.places),
        lambda s, x: x[..., s.first :] * 2,
        lambda s, x: x[:, ::2],
        lambda s, x: x.narrow(dim, first, 1).expand(-1, *shape),
        lambda s, x: torch.cat(torch.split(x, lengths, dim)[::-1], dim),
        lambda s, x: torch.cat([x.split(2, dim)[0].relu(), x], dim - rank - 1),
        lambda s, x: torch.tile(x, (1, *[2] * rank)),
    ]
    if rank > 1:  # else single numbers would be left
        calls += [
            lambda s, x: torch.cat([x.select(dim, first).unsqueeze(dim), x], dim),
            lambda s, x: torch.cat([x.unbind(dim)[k].unsqueeze(dim) for k in (first, 0)], dim),
        ]
    return Call(d.choice(calls), places=places, first=first)


def padded(d, shape):
    """An edge."""
    wide, value = [d.randint(0, 2) for _ in range(4)], d.choice([0.0, 0.5, -0.7])
    if len(shape) < 3:
        return Call(lambda s, x: functional.pad(x, wide[:2], value=value))
    layers = [nn.ZeroPad2d(1), nn.ConstantPad2d(tuple(wide), value)]
    layers += [nn.ReflectionPad2d((1, 0, 2, 1)), nn.ReplicationPad2d(tuple(wide))]
    calls = [
        lambda s, x: functional.pad(x, wide),
        lambda s, x: functional.pad(x, [*wide, 1, 0], "constant", value),
        lambda s, x: functional.pad(x, (1, 1, 0, 1), mode="circular"),
    ]
    return d.choice([*layers, *map(Call, calls)])


def clamp(d, shape):
    low, high = d.choice([(-0.5, 0.5), (0.2, 1.2), (None, 0.3), (-0.1, None)])
    calls = [
        lambda s, x: torch.clamp(x, low, high),
        lambda s, x: x.clamp(min=low, max=high),
        lambda s, x: functional.relu6(x * 4),
        lambda s, x: functional.hardtanh(x, -0.5, 0.25),
    ]
    return d.choice([nn.ReLU6(), nn.Hardtanh(), *map(Call, calls)])


def total(d, shape):
    """Sums and means that keep the number of dimensions."""
    dims = d.sample(range(1, len(shape) + 1), d.randint(1, len(shape)))
    calls = [
        lambda s, x: x.sum(dims, keepdim=True),
        lambda s, x: torch.sum(x, dims[0], True) / 3,
        lambda s, x: torch.mean(x, dim=dims, keepdim=True),
        lambda s, x: x.sum(-1).unsqueeze(-1) if len(shape) > 1 else 2 * x,
    ]
    return Call(d.choice(calls))


def residual(d, shape):
    """The sum or difference of two branches."""
    first, second = (drawn(d, shape, same=True) for _ in range(2))
    call = d.choice([operator.add, operator.sub, torch.add, torch.sub, operator.iadd, operator.isub])
    return Call(
        lambda s, x: call(s.first(x), s.second(x)), first=first, second=d.choice([nn.Identity(), second])
    )


def order(d, shape):
    """The same values in another shape, or nothing at all."""
    turned, plane = (shape[0], *shape[:0:-1]), len(shape) == 3
    calls = [
        lambda s, x: x.view(x.size(0), *turned),
        lambda s, x: x.reshape(x.shape[0], -1).unflatten(1, turned),
        lambda s, x: torch.reshape(x, (-1, *turned)).contiguous(),
        lambda s, x: torch.flatten(torch.unsqueeze(x, 1), 1, 2).flatten(x.ndim - 1),
        lambda s, x: torch.squeeze(x.unsqueeze(2), 2).unsqueeze(1).squeeze(1).detach(),
        lambda s, x: functional.dropout(x, 0.5, training=s.training),
        lambda s, x: functional.dropout2d(x, training=False) if plane else functional.dropout(x, 0.0),
    ]
    layers = [nn.Identity(), nn.Dropout2d() if plane else nn.Dropout()]
    return d.choice([*map(Call, calls), *layers, nn.Sequential(nn.Flatten(), nn.Unflatten(1, shape))])


def ended(d, shape):
    """To vectors."""
    ways = [lambda s, x: x.mean((2, 3)), lambda s, x: torch.mean(x, dim=[-1, -2])]
    ways.append(lambda s, x: x.sum(-1).mean(2))
    ways.append(lambda s, x: x.mean((3, 2), keepdim=True).flatten(1))
    return d.choice([nn.Flatten(), nn.Flatten(), Call(d.choice(ways))])


def linear(d, shape):
    layer = nn.Linear(shape[0], d.randint(2, 5), bias=d.flip())
    call = Call(lambda s, x: functional.linear(x, s.layer.weight, s.layer.bias), layer=layer)
    return d.choice([layer, call])


ANY = [norm, relu, leaky, constant, parts, order, residual, moved, padded, clamp, total]
PIECES = [conv, max_pool, avg_pool, adaptive, *ANY]


def after(layer, shape):
    """The shape of what a layer makes of values of a shape."""
    with torch.no_grad():
        found = layer.eval()(torch.rand(2, *shape))
    if not found.isfinite().all():
        raise ValueError("a window of padding alone")
    return tuple(found.shape[1:])


def drawn(d, shape, piece=None, same=False):
    """A layer for values of a shape, which it keeps if so asked."""
    for _ in range(200):
        kinds = (
            ANY[:4] + [conv] * (len(shape) == 3) if same else PIECES if len(shape) == 3 else [linear, *ANY]
        )
        try:
            layer = (piece or d.choice(kinds))(d, shape)
            found = after(layer, shape)
        except (RuntimeError, ValueError):  # it does not fit
            continue
        if 0 < torch.Size(found).numel() <= 150 and not (same and found != shape):
            return layer
    raise AssertionError(f"no {piece} fits {shape}")


def network(number, *pieces, scales=False, wide=False):
    """(model, images): the classifier of a number, with the pieces named, and two images.

    With ``scales`` its weights are from 1e-6 to 1e6, and some neurons never or always speak;
    with ``wide`` its images are several times as wide as a kernel.
    """
    d = Draw(number)
    with rng.scope("cpu", number, "network"):
        shape = now = (d.randint(1, 3), *d.choice([(4, 3), (3, 5), (2, 6), (5, 2)]))
        shape = now = (1, *d.choice([(8, 11), (11, 7)])) if wide else shape
        layers = []
        for piece in [*(pieces or [None] * d.randint(2, 4)), ended, *[None] * d.randint(0, 2)]:
            layers.append(drawn(d, now, piece))
            now = after(layers[-1], now)
        module = nn.Sequential(*layers, nn.Linear(now[0], 3), *([nn.ReLU()] if d.random() < 0.1 else []))
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.5, 2)
        for weight in module.parameters():
            weight.data.mul_(10 ** d.uniform(-6, 6) if scales else 2)
            if scales and weight.dim() == 1:
                weight.data[0].mul_(d.choice([1e3, -1e3]))
    seen = {"pixel_range": (0, 255), "mean": (99.0, 50.0, 9.0)[: shape[0]], "std": (60.0,) * shape[0]}
    about = {"role": "classifier", "architecture": "drawn", "shape": shape, "classes": 3}
    card = ModelCard(**about, preprocessing=seen if d.flip() else {})
    images = rng.uniform(rng.keys(number, "images", torch.arange(2)), shape)
    return Model(module, card).eval(), (1.4 * images - 0.2).clamp(0, 1)  # some pixels black or white
