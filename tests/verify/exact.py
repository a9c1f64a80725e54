"""Exact minima of margins of small networks: by every pattern of signs, by mixed-integer programming."""

import itertools

import numpy
import torch
from scipy.optimize import Bounds, LinearConstraint, linprog, milp


def smallest(layers, ball, rows, slope):
    """The exact minima of ``rows @ logits`` on a box: a linear program for each pattern of activations."""
    best, widths = [numpy.inf] * len(rows), [len(bias) for _, bias in layers[:-1]]
    box = torch.stack([ball.lower.flatten(), ball.upper.flatten()], 1).tolist()
    for signs in itertools.product((False, True), repeat=sum(widths)):
        a, b, sides, ends, left = numpy.eye(len(box)), numpy.zeros(len(box)), [], [], list(signs)
        for number, (weight, bias) in enumerate(layers):
            a, b = weight @ a, weight @ b + bias
            if number < len(widths):
                on = numpy.array([left.pop() for _ in bias])
                sides, ends = [*sides, *numpy.where(on, -a.T, a.T).T], [*ends, *numpy.where(on, b, -b)]
                factor = numpy.where(on, 1, slope)
                a, b = a * factor[:, None], b * factor
        for k, row in enumerate(rows):
            solved = linprog(row @ a, numpy.array(sides), ends, bounds=box)
            best[k] = min(best[k], solved.fun + row @ b) if solved.status == 0 else best[k]
    return torch.tensor(best)


def programmed(layers, low, high, row):
    """The minimum of ``row @ logits`` of a ReLU network on a box, and the number of undecided signs: one
    binary for each, with big constants from intervals."""
    sizes = [len(low), *(size for _, bias in layers[:-1] for size in (len(bias), len(bias), len(bias)))]
    starts, total = numpy.cumsum([0, *sizes]), sum(sizes)
    lower, upper, whole, undecided = (
        -numpy.inf * numpy.ones(total),
        numpy.inf * numpy.ones(total),
        numpy.zeros(total),
        0,
    )
    lower[: len(low)], upper[: len(high)] = low, high
    rows, least, most, before = [], [], [], slice(0, len(low))

    def limit(below, above, *terms):
        one = numpy.zeros(total)
        for place, factor in terms:
            one[place] += factor
        rows.append(one)
        least.append(below)
        most.append(above)

    for number, (weight, bias) in enumerate(layers[:-1]):
        z, a, on = (range(*starts[1 + 3 * number + part : 3 + 3 * number + part]) for part in range(3))
        up, down = numpy.maximum(weight, 0), numpy.minimum(weight, 0)
        bottom, top = up @ low + down @ high + bias, up @ high + down @ low + bias
        for k in range(len(bias)):
            limit(bias[k], bias[k], (z[k], 1), (before, -weight[k]))
            limit(0, numpy.inf, (a[k], 1), (z[k], -1))
            limit(-numpy.inf, -min(bottom[k], 0), (a[k], 1), (z[k], -1), (on[k], -min(bottom[k], 0)))
            limit(-numpy.inf, 0, (a[k], 1), (on[k], -max(top[k], 0)))
            lower[a[k]], lower[on[k]], upper[on[k]], whole[on[k]] = 0, bottom[k] >= 0, top[k] > 0, 1
            undecided += bottom[k] < 0 < top[k]
        low, high, before = numpy.maximum(bottom, 0), numpy.maximum(top, 0), slice(a[0], a[-1] + 1)
    costs = numpy.zeros(total)
    costs[before] = row @ layers[-1][0]
    solved = milp(
        costs,
        constraints=LinearConstraint(numpy.array(rows), least, most),
        integrality=whole,
        bounds=Bounds(lower, upper),
        options={"mip_rel_gap": 1e-9},
    )
    assert solved.status == 0
    return solved.fun + row @ layers[-1][1], undecided
