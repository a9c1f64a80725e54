"""Classes in another order than the model's outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from advkit.core.stats import mcnemar
from advkit.evaluation.check import CAUSE, Doubt, Remedy, check
from advkit.evaluation.evidence import Evidence

CHANCE = 1e-3
"""Largest probability that chance alone makes another order better; doubted below."""


@check(
    "class-order",
    rank=CAUSE,
    summary="an order of the classes in which significantly more clean images are classified correctly",
    source="folders sort 10 before 2, and lists of names differ: then a good model looks like a poor one",
    verdicts_only=True,
)
def class_order(evidence: Evidence) -> Doubt | str | None:
    """Assigns outputs to classes on every second image, and counts on the others, and the other way round."""
    cascade = evidence.cascade
    outputs, labels = cascade.clean.argmax(1).cpu(), cascade.images.labels.cpu()
    names = cascade.images.class_names
    halves = [slice(0, None, 2), slice(1, None, 2)]
    better, pairs = torch.zeros(len(labels)).bool(), dict[int, int]()
    for seen, unseen in (halves, halves[::-1]):
        order = assigned(outputs[seen], labels[seen])
        said = outputs[unseen].tolist()
        better[unseen] = torch.tensor([order.get(output, output) for output in said]) == labels[unseen]
        pairs |= {k: order[k] for k in said if order.get(k, k) != k and order[k] < len(names)}
    now = outputs == labels
    detail = f"{int(now.sum())} of {len(labels)} clean images are classified correctly"
    if better.sum() <= now.sum() or mcnemar(int((better & ~now).sum()), int((now & ~better).sum())) > CHANCE:
        return f"{detail}, and not significantly more in any other order of the classes"
    examples = ", ".join(f"output {k} as {names[meant]}" for k, meant in [*pairs.items()][:3])
    return Doubt(
        f"{detail}, and {int(better.sum())} in another order of the classes ({examples})",
        Remedy("compare the order of the model's outputs with the class names, and say it", "--classes FILE"),
    )


def assigned(outputs: Tensor, labels: Tensor) -> dict[int, int]:
    """The class that each output means, of those that occur, if as many of the (n,) ``outputs`` as possible
    are to agree with the (n,) ``labels``; itself where that is as good."""
    from scipy.optimize import linear_sum_assignment  # takes a third of a second

    classes, place = torch.cat([outputs, labels]).unique(return_inverse=True)
    size, (row, column) = len(classes), place.view(2, -1)
    counts = torch.bincount(row * size + column, minlength=size**2).view(size, size).double()
    counts.diagonal().add_(0.5)
    _, best = linear_sum_assignment(counts.numpy(), maximize=True)
    return dict(zip(classes.tolist(), classes[torch.from_numpy(best)].tolist(), strict=True))
