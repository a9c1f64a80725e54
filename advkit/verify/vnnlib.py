"""Properties of networks in VNN-LIB, the format of the verification competitions (vnnlib.org).

A property describes inputs and outputs that should not occur together: bounds of every input, and linear
constraints of the outputs, joined by ``and`` and ``or``. It holds if no input within the bounds gives such
outputs. This is the question whether a classifier is robust: one more layer turns each alternative into a
logit, which is above that of "none" where all its constraints are met with room to spare.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advkit.core.device import exact_float32
from advkit.core.errors import DataError
from advkit.core.threat import Threat
from advkit.data.arrays import from_arrays
from advkit.models.load import wrap
from advkit.models.model import Model, evaluation_mode
from advkit.verify.bounds.read import check, read
from advkit.verify.certification.complete import Completion, gap_notes
from advkit.verify.certification.prove import Prover

LARGEST = 10_000
"""Alternatives of a property."""
DEEPEST = 100
"""Brackets inside brackets."""
TOKEN = re.compile(r";[^\n]*|[()]|[^\s();]+")

Form = dict[str, float]
"""A linear function: the factor of each variable; of "" the constant."""


@dataclass(frozen=True)
class Region:
    """Inputs in a box, and outputs that should not occur there."""

    low: Tensor
    """(D,) float64"""
    high: Tensor
    """(D,) float64"""
    alternatives: tuple[tuple[Tensor, Tensor], ...]
    """Of each, factors (M, K) and constants (M,): all M functions of the outputs are at least 0."""


@dataclass(frozen=True)
class Answer:
    """What became of a property."""

    status: Literal["holds", "violated", "open"]
    input: Tensor | None = None
    """(D,) of a violation, which the network itself computes."""
    margin: float = math.nan
    """Lower bound of how far the outputs stay from the worst alternative, net of rounding; of an open one the
    bound that was reached."""
    subproblems: int = 0
    notes: tuple[str, ...] = ()
    """Of an open one: why more time may not decide it."""


def load_property(path: str | Path) -> tuple[Region, ...]:
    """The regions of a file.

    Raises:
        DataError: the file cannot be read, or says more than bounds of inputs and constraints of outputs.

    Example:
        >>> from pathlib import Path
        >>> text = "(declare-const X_0 Real)(declare-const Y_0 Real)"
        >>> text += "(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= Y_0 3))"
        >>> _ = Path("small.vnnlib").write_text(text)
        >>> [(float(r.low[0]), float(r.high[0])) for r in load_property("small.vnnlib")]
        [(0.0, 1.0)]
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the property {path} cannot be read ({error})", code="data-not-found") from error
    try:
        return _regions(text)
    except (_Odd, ValueError, IndexError, TypeError) as error:
        reason = "something is missing between brackets" if isinstance(error, IndexError) else error
        raise DataError(f"{path} is no property that can be checked: {reason}") from error


class _Odd(Exception):
    """Something that is not read; the message says what."""


def _regions(text: str) -> tuple[Region, ...]:
    names: list[str] = []
    cases: list[tuple[Form, ...]] = [()]
    for command in _parsed(text):
        if command[0] == "declare-const":
            names.append(command[1])
        elif command[0] == "assert":
            cases = _joined([cases, _alternatives(command[1])])
        else:
            raise _Odd(f"the command {command[0]!r} is not known")
    counts = [sum(name.startswith(letter) for name in names) for letter in "XY"]
    if not all(counts) or set(names) != {
        f"{a}_{k}" for a, n in zip("XY", counts, strict=True) for k in range(n)
    }:
        raise _Odd("its variables are not X_0, X_1, ... and Y_0, Y_1, ...")
    found: dict[tuple[float, ...], list[tuple[Tensor, Tensor]]] = {}
    for case in cases:
        if any(not any(form) and form.get("", 0.0) > 0 for form in case):
            continue  # between constants, and false
        box, outputs = _box(case, counts[0]), [form for form in case if any(v[:1] == "Y" for v in form)]
        if not outputs:
            raise _Odd("an alternative says nothing of the outputs")
        rows = torch.zeros(len(outputs), counts[1] + 1, dtype=torch.float64)
        for row, form in zip(rows, outputs, strict=True):
            for name, factor in form.items():
                if name[:1] == "X" or name not in {*names, ""}:
                    raise _Odd(f"{name} occurs in a constraint of the outputs")
                row[int(name[2:]) if name else -1] = -factor  # forms are at most 0
        if all(low <= high for low, high in zip(box[::2], box[1::2], strict=True)):
            found.setdefault(box, []).append((rows[:, :-1], rows[:, -1]))
    ends = {box: torch.tensor(box, dtype=torch.float64).view(-1, 2) for box in found}
    return tuple(Region(ends[box][:, 0], ends[box][:, 1], tuple(some)) for box, some in found.items())


def _box(case: tuple[Form, ...], count: int) -> tuple[float, ...]:
    """Lowest and highest value of each input in turn."""
    ends = [-math.inf, math.inf] * count
    for form in case:
        inputs = [name for name in form if name[:1] == "X"]
        if not inputs or any(name[:1] == "Y" for name in form):
            continue
        if len(inputs) > 1 or form[inputs[0]] == 0:
            raise _Odd("a constraint relates several inputs")
        end, k = -form.get("", 0.0) / form[inputs[0]], int(inputs[0][2:])
        if form[inputs[0]] < 0:
            ends[2 * k] = max(ends[2 * k], end)
        else:
            ends[2 * k + 1] = min(ends[2 * k + 1], end)
    if not all(map(math.isfinite, ends)):
        raise _Odd("an input has no lowest or no highest value")
    return tuple(ends)


def _parsed(text: str) -> list[Any]:
    """Nested lists of words."""
    levels: list[list[Any]] = [[]]
    for token in TOKEN.findall(text):
        if token == "(":
            levels.append([])
            if len(levels) > DEEPEST:
                raise _Odd("its brackets are too deep")
        elif token == ")":
            done = levels.pop()
            levels[-1].append(done)
        elif token[0] != ";":
            levels[-1].append(token)
    if len(levels) != 1:
        raise _Odd("a bracket is not closed")
    return levels[0]


def _joined(parts: list[list[tuple[Form, ...]]]) -> list[tuple[Form, ...]]:
    """All combinations of one alternative of each."""
    if math.prod(map(len, parts)) > LARGEST:
        raise _Odd(f"it has more than {LARGEST:,} alternatives")
    return [sum(case, ()) for case in itertools.product(*parts)]


def _alternatives(term: list[Any]) -> list[tuple[Form, ...]]:
    """Each a conjunction of forms that are at most 0."""
    word, *rest = term
    if word == "or":
        return [case for part in rest for case in _alternatives(part)]
    if word == "and":
        return _joined([_alternatives(part) for part in rest])
    if word not in ("<=", ">=", "<", ">") or len(rest) != 2:
        raise _Odd(f"{word!r} is no constraint that is known")
    less, more = rest if word[0] == "<" else rest[::-1]
    form = _sum(_form(less), _form(more), -1.0)
    if word in "<>":  # without the boundary itself
        form[""] = math.nextafter(form.get("", 0.0), math.inf)
    return [(form,)]


def _form(term: Any) -> Form:
    if isinstance(term, str):
        if term[:2] in ("X_", "Y_"):
            return {term: 1.0}
        if not math.isfinite(float(term)):
            raise _Odd(f"{term} is no finite number")
        return {"": float(term)}
    word, *rest = term
    parts = [_form(part) for part in rest]
    if word == "+":
        total: Form = {}
        for part in parts:
            total = _sum(total, part, 1.0)
        return total
    if word == "-":
        first = parts[0] if len(parts) > 1 else {}
        for part in parts[len(parts) > 1 :]:
            first = _sum(first, part, -1.0)
        return first
    if word == "*" and len(parts) == 2:
        constants = [part for part in parts if set(part) == {""}]
        if constants:
            other = parts[0] if parts[1] is constants[0] else parts[1]
            return {name: constants[0][""] * factor for name, factor in other.items()}
    raise _Odd(f"{word!r} is no linear function")


def _sum(x: Form, y: Form, factor: float) -> Form:
    return {name: x.get(name, 0.0) + factor * y.get(name, 0.0) for name in {**x, **y}}


class _Posed(nn.Module):
    """From the unit cube to a logit 0 for "none", and one for each alternative: its least function."""

    def __init__(self, network: nn.Module, low: Tensor, high: Tensor, region: Region) -> None:
        super().__init__()
        self.network = network
        self.low: Tensor
        self.width: Tensor
        self.register_buffer("low", low)
        self.register_buffer("width", high - low)
        factors = torch.cat([rows for rows, _ in region.alternatives])
        self.last = nn.Linear(factors.shape[1], len(factors))
        self.last.weight.data = factors.float()
        self.last.bias.data = torch.cat([constants for _, constants in region.alternatives]).float()
        self.counts = [len(rows) for rows, _ in region.alternatives]

    def forward(self, u: Tensor) -> Tensor:
        functions = self.last(self.network(u * self.width + self.low).flatten(1))
        logits, first = [functions[:, :1] * 0], 0
        for count in self.counts:
            least = functions[:, first : first + 1]
            for k in range(first + 1, first + count):  # the lesser of a and b is a - relu(a - b)
                least = least - torch.relu(least - functions[:, k : k + 1])
            logits.append(least)
            first += count
        return torch.cat(logits, 1)


def decide(
    model: Model, regions: tuple[Region, ...], *, timeout: float, subproblems: int | None = None
) -> Answer:
    """Whether a property holds for a network, without the preprocessing of its card.

    Bounds first, then attacks, then branch and bound, then a longer attack, region by region; a violation is
    confirmed by the network on the exact input. The answer "holds" covers exact arithmetic and a float32
    pass, as certificates do.

    Args:
        model: whose inputs are the property's, in the order of their shape.
        regions: of `load_property`.
        timeout: seconds of branch and bound for each region.
        subproblems: number of subproblems for each region; None: any.

    Raises:
        DataError: the numbers of inputs or outputs are not the network's.
        ModelError: a layer that cannot be bounded, which is named.
    """
    answers = []
    for region in regions:
        answers.append(_answer(model, region, timeout, subproblems))
        if answers[-1].status == "violated":
            return answers[-1]
    if not answers:
        return Answer("holds", margin=math.inf)
    worst = min(answers, key=lambda answer: answer.margin)
    many = sum(answer.subproblems for answer in answers)
    notes = dict.fromkeys(note for answer in answers for note in answer.notes)
    return Answer(worst.status, None, worst.margin, many, tuple(notes))


def _answer(model: Model, region: Region, timeout: float, subproblems: int | None) -> Answer:
    shape, (inputs, outputs) = model.card.shape, (len(region.low), region.alternatives[0][0].shape[1])
    with evaluation_mode(model), torch.no_grad():
        sizes = math.prod(shape), model.network(torch.zeros(1, *shape)).numel()
    if (inputs, outputs) != sizes:
        raise DataError(
            f"the property has {inputs} inputs and {outputs} outputs, but the network {sizes[0]} and "
            f"{sizes[1]}"
        )
    low, high = region.low.float(), region.high.float()
    ends = torch.nextafter(low, low - 1), torch.nextafter(high, high + 1)  # whatever rounding has moved
    with evaluation_mode(model), torch.no_grad(), exact_float32():
        below, above = (end.view(shape) for end in ends)
        posed = wrap(_Posed(model.network, below, above, region), shape=shape).eval()
        x, label, threat = torch.full((1, *shape), 0.5), torch.zeros(1, dtype=torch.long), Threat("linf", 0.5)
        graph = read(posed)
        check(graph, posed, x)
        proof = Prover(graph, threat, "auto", torch.device("cpu")).prove(x, label)
        if proof.margin[0] > 0:
            return Answer("holds", margin=float(proof.margin[0]))
        completion = Completion(posed, graph, threat, timeout=timeout, subproblems=subproblems)
        margin, many = float(proof.margin[0]), 0
        for point in _points(completion, x, label):
            if isinstance(point, Tensor):
                found = (point.flatten() * (ends[1] - ends[0]) + ends[0]).clamp(low, high)
                if violated(model, region, found):
                    return Answer("violated", found)
            else:
                margin, many = point
        if margin > 0:
            return Answer("holds", None, margin, many)
        return Answer("open", None, margin, many, tuple(gap_notes(posed, threat, "it")))


def _points(completion: Completion, x: Tensor, label: Tensor) -> Iterator[Tensor | tuple[float, int]]:
    """Points of the unit cube that may violate a property, and what complete verification ends with. Where an
    example of the attacks does not violate it after all, branch and bound goes on."""
    yield x
    image = from_arrays(x, label, name="property", split="all")
    for verdict, example, _ in completion.verdicts(image, torch.arange(1)):
        if example is None:
            yield -math.inf if verdict.margin is None else verdict.margin, verdict.subproblems or 0
            return
        yield example
    for one, _ in completion.decisions(x, label):
        if one.example is not None:
            yield one.example
        yield (min(one.margin, 0.0) if one.example is not None else one.margin), one.problems


def violated(model: Model, region: Region, x: Tensor) -> bool:
    """Whether the network gives outputs for an input (D,) that should not occur; it lies within the bounds
    as far as float32 has such numbers."""
    outputs = model.network(x.view(1, *model.card.shape)).flatten(1).double()[0]
    return any(bool((rows @ outputs + end >= 0).all()) for rows, end in region.alternatives)
