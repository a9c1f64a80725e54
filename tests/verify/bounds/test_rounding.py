"""Rounding is counted in full, and not much more than that."""

import math
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import pytest
import torch

from advkit.core import rng
from advkit.verify.bounds.affine import Affine, Convolution, Dense, Normalise, Scale
from advkit.verify.bounds.arrange import Average, Concatenation, Gather, Reshape, Sum, Total
from advkit.verify.bounds.graph import Graph, Node
from advkit.verify.bounds.relaxation import MaxPool, Relu
from advkit.verify.bounds.rounding import Float32, float32_error, gamma, roundings

CPU = torch.device("cpu")


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 24), (torch.float64, 53)])
def test_gamma_is_that_of_the_book(dtype, bits):
    numbers = [1, 7, 1000, 2 ** (bits - 1), 7 * 2 ** (bits - 3), 2**bits, 2**bits + 2]
    exact = [float(Fraction(n, 2**bits) / (1 - Fraction(n, 2**bits))) for n in numbers[:-2]]
    assert [gamma(n, dtype) for n in numbers] == pytest.approx([*exact, math.inf, math.inf], rel=1e-12)
    assert gamma(torch.tensor(numbers).double(), dtype).tolist() == [gamma(n, dtype) for n in numbers]


def some(number, *shape):
    return rng.normal(rng.keys(number, "rounding", torch.arange(1)), shape)[0]


def pieces(number=0):
    """(an operation, its roundings at most, which share of its error is seen, an image's values)"""
    plain, channel = ((1, 1), (0, 0), (1, 1)), [some(number + k, 3, 1, 1) for k in range(4)]
    return [
        (Dense(some(number, 1, 1), some(1, 1)), 3, 0.2, (1,)),
        (Dense(some(number, 3, 5), some(2, 3)), 7, 0.1, (5,)),
        (Dense(some(number, 5, 3), None), 7, 0.1, (3,)),
        (Convolution(some(number, 4, 3, 1, 2), None, (3, 2, 3), *plain, 1), 4 * 2 + 2, 0.1, (3, 2, 3)),
        (Convolution(some(number, 2, 3, 2, 2), some(1, 2), (3, 2, 3), *plain, 1), 3 * 4 + 2, 0.06, (3, 2, 3)),
        (Convolution(some(number, 6, 1, 1, 2), None, (3, 2, 3), *plain, 3), 2 * 2 + 2, 0.1, (3, 2, 3)),
        (Scale(channel[0], channel[1]), 10, 0.1, (3, 2, 3)),
        (Normalise(channel[0], channel[1].square(), channel[2], channel[3], 0.1), 16, 0.05, (3, 2, 3)),
        (Average(some(number, 2, 4).abs(), some(1, 3, 5).abs()), 4 * 5 + 4, 0.02, (1, 4, 5)),
        (Average(some(number, 4, 2).abs(), some(1, 5, 3).abs()), 4 * 5 + 4, 0.02, (1, 2, 3)),
        (Reshape((4,), (2, 2)), 0, 0, (4,)),
        (Gather((4,), torch.tensor([3, 1, 4, 3]), 0.3), 4, 0, (4,)),
        (Total((3, 2, 4), (1, 3)), 3 * 4 + 2, 0.1, (3, 2, 4)),
        (Concatenation((4,)), 2, 0, (4,)),
        (Relu(0.3 + some(number, 1).abs().item() / 9), 2, 0.5, (3,)),
    ]


@pytest.mark.parametrize("which", range(15))
def test_each_operation_rounds_as_often_as_is_said(which):
    most = 0.0
    for number in range(0, 200, 10):
        op, terms, share, shape = pieces(number)[which]
        x = 100 * some(number, 64, *shape) - 90  # negative values are the largest
        fine = op.to(CPU, torch.float64) if isinstance(op, Affine) else op
        exact, computed = fine.apply(x.double()), op.apply(x).double()
        graph = Graph((Node("images", None, (), shape), Node("op", fine, (0,), exact.shape[1:])))
        error = float32_error(graph, [x.double(), exact], [x.double(), exact])
        assert ((computed - exact).abs() <= error).all()
        assert not isinstance(op, Affine) or op.terms == terms
        most = max(most, ((computed - exact).abs() / error.clamp(min=1e-300)).max().item())
    assert share <= most <= 1


def error_of(op, x):
    exact = op.apply(x)
    graph = Graph((Node("images", None, (), x.shape[1:]), Node("op", op, (0,), exact.shape[1:])))
    return float32_error(graph, [x, exact], [x, exact])


@pytest.mark.parametrize("at", ["values", "weights"])
def test_a_term_that_is_0_is_not_rounded(at):
    """So an operation rounds as often as the same without its zeros."""
    some_of, shared = [3, 8, 30], {"stride": (1, 1), "padding": (0, 1), "dilation": (1, 1), "groups": 1}
    wide, x, bias = some(1, 4, 40), some(2, 5, 40).double(), some(3, 4).double()
    zero = torch.ones(40, dtype=torch.bool).index_fill(0, torch.tensor(some_of), False)
    (x if at == "values" else wide)[:, zero] = 0
    wide = wide.double()
    few = error_of(Dense(wide[:, some_of], bias), x[:, some_of])
    assert torch.allclose(error_of(Dense(wide, bias), x), few, rtol=1e-12, atol=0)
    for shape in ((1, 4), (2, 2)):  # 40 channels of them; the padding is 0, too
        kernel = torch.stack([wide] * 4, 2).view(4, 40, *shape)
        image = torch.stack([x] * 9, 2).view(5, 40, 3, 3)
        if shape == (1, 4):
            image = image.view(5, 40, 1, 9)
        whole = error_of(Convolution(kernel, bias, tuple(image.shape[1:]), **shared), image)
        part = image[:, some_of]
        least = error_of(Convolution(kernel[:, some_of], bias, tuple(part.shape[1:]), **shared), part)
        assert torch.allclose(whole, least, rtol=1e-12, atol=0)
        assert (whole[..., 0] < whole[..., whole.shape[-1] // 2]).all()  # half of what is there is padding


@pytest.mark.parametrize("which", [1, 3, 8, 12])
def test_results_that_are_too_small_may_be_0(which):
    """Whether the processor keeps subnormal numbers or flushes them."""
    op, *_, shape = pieces()[which]
    op, x = replace(op, weight=op.weight * 1e-20) if which in (1, 3) else op, 100 * some(0, 64, *shape) - 90
    x = x * (1e-20 if which in (1, 3) else 1e-40)
    fine = op.to(CPU, torch.float64)
    fine, op = (replace(one, bias=None) if which < 4 else one for one in (fine, op))
    try:
        torch.set_flush_denormal(True)
        flushed = op.apply(x).double()
    finally:
        torch.set_flush_denormal(False)
    exact, error = fine.apply(x.double()), error_of(fine, x.double())
    assert ((flushed - exact).abs() <= error).all() and (error < 1e-35).all() and (exact != 0).any()
    assert ((op.apply(x).double() - exact).abs() <= error).all()


@pytest.mark.parametrize("which", [1, 3, 8, 12])
def test_what_may_overflow_has_no_bound_of_its_error(which):
    op, *_, shape = pieces()[which]
    fine, x = op.to(CPU, torch.float64), torch.ones(1, *shape, dtype=torch.float64)
    for size, bounded in ((1e30, True), (1e39, False)):
        assert error_of(fine, size * x).isfinite().all() == bounded


def test_a_sum_rounds_and_a_way_rounds_as_often_as_its_nodes():
    nodes = [Node("images", None, (), (4,)), Node("a", Dense(some(0, 3, 4), None), (0,), (3,))]
    nodes += [Node("b", Relu(), (1,), (3,)), Node("c", Sum(-1), (1, 2), (3,))]
    graph = Graph(tuple(nodes))
    for last, once in enumerate((8, 8 * 2 + 6, 8 * 3 + 6, 8 * 4 + 6 + 4)):
        assert roundings(graph, last, torch.float32) == once
        assert roundings(graph, last, torch.float64) == once + 4 + 3 * last


@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_an_error_is_handed_on_with_the_slopes_that_it_may_meet(slope):
    """Of z, f(z) and f(z) - z, whose ends are multiples of the errors of z and of f(z) - z."""
    nodes = [Node("images", None, (), (1,)), Node("z", Dense(torch.ones(1, 1), -torch.ones(1)), (0,), (1,))]
    nodes += [Node("f", Relu(slope), (1,), (1,)), Node("y", Sum(-1), (2, 1), (1,))]
    graph = Graph((*nodes, Node("g", Relu(slope), (3,), (1,)))).to(CPU, torch.float64)
    pairs = torch.combinations(torch.tensor([-3, -1.1, -0.9, 0, 0.9, 1.1, 3]).double(), with_replacement=True)
    z, y = (pairs[places].T[..., None] for places in torch.cartesian_prod(*[torch.arange(28)] * 2).T)
    one, e = torch.ones_like(z[0]), 1.5 * gamma(3, torch.float32)

    def slopes(low, high):
        return torch.where(low < 0, slope * one, one), torch.where(high > 0, one, slope * one)

    least, most = slopes(z[0] - 1, z[1] + 1)
    y_error = torch.where((y[0] < 1) & (y[1] > -1), 1 - least, 1 + most)  # by rows if its sign is open
    y = y * (1 + most)
    low, high = slopes(y[0] - y_error, y[1] + y_error)
    ends = [[one / 2, e * z[i], graph.nodes[2].op.apply(e * z[i]), e * y[i], e * y[i]] for i in (0, 1)]
    found = Float32(graph, *ends, lambda count, dtype: iter([slice(count)]))
    for error, wanted in zip(found.errors, [0 * one, one, most, y_error, high * y_error], strict=True):
        assert torch.allclose(error / e, wanted, atol=1e-5)
    last = (low + high) / 2 * (1 - least) + (high - low) / 2 * y_error
    for k, wanted in enumerate([one, most, 1 - least, last], 1):
        assert torch.allclose(found.of(k, one, torch.arange(len(one))) / e, wanted[:, 0], atol=1e-5)


def test_operations_are_frozen_and_equal_to_themselves_alone():
    z = torch.zeros(1, 1, 2, 2)
    pools = [Relu(), MaxPool((2, 2), (2, 2), (0, 0), (1, 1), False)]
    others = [Sum(1), Graph(()), Node("a", None, (), ()), *pools, *(op.relaxed(z, z) for op in pools)]
    for op in [*(piece[0] for piece in pieces()), *others]:
        with pytest.raises(FrozenInstanceError):
            op.something = 1
        assert not isinstance(op, Affine) or replace(op) != op
