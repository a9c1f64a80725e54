"""Complete verification: branch and bound over the signs of the ReLUs' inputs.

A *problem* is one image with one wrong class and a sign for some inputs of ReLUs. Its bound is a linear one,
as in `bounds`, whose slopes and multipliers of the signs' constraints are optimised jointly (Wang et al.,
beta-CROWN, NeurIPS 2021). A problem that is not proved is split by one more sign, chosen by trying a few (De
Palma et al., filtered smart branching, 2021). Problems of all images share the batches.

The search is in float32, and where few signs are open in a reduced network (`bounds.reduced`). Every bound is
then computed again in float64, in the whole network, and widened for rounding: the terms of the multipliers
count by their share of the reach. Points where a bound is attained are tried on the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from advkit.verify.bounds.graph import Graph
from advkit.verify.bounds.linear import carried, differences
from advkit.verify.bounds.optimised import HELD, STEPS, ascended, slopes_between, tighten
from advkit.verify.bounds.reduced import products, products_reduced, reduced
from advkit.verify.bounds.relaxation import Lines, Relaxation, Relu
from advkit.verify.certification.leaf import lowest
from advkit.verify.certification.search import Problems, Search

FEW = 15
"""Steps of the search for each new problem; its slopes and multipliers start from its parent's."""
CANDIDATES = 32
"""Inputs of ReLUs that are tried for a split."""
HIDDEN = 10
"""Steps of the search for bounds of hidden neurons; three times as many tighten by another hundredth."""
LONG = 5 * STEPS
"""Steps of a problem without an undecided sign, where no linear programme is solved."""
LARGEST = 1e4
"""Of multipliers, in units of the coefficient at the ReLU; half precision keeps them."""
ALONE = 8
"""Problems of an image that are worth a pass of their own, through its reduced network."""


@dataclass(frozen=True)
class Form:
    """A network that bounds are carried through: the whole one, or that of one image, reduced."""

    graph: Graph
    dtype: torch.dtype
    relus: tuple[int, ...]
    """Their indices."""
    place: Tensor | None = None
    """(U,) of their inputs, one after another, among all F of the whole network; None: all of these."""

    def of(self, flat: Tensor) -> Tensor:
        """(S, U) the values of its ReLUs' inputs, of (S, F)."""
        return flat if self.place is None else flat[:, self.place]

    def shaped(self, values: Tensor) -> dict[int, Tensor]:
        """By index of a ReLU, (S, *shape), of (S, U)."""
        shapes = [self.graph.nodes[k].shape for k in self.relus]
        pieces = values.split([math.prod(shape) for shape in shapes], 1)
        return {k: piece.view(-1, *shape) for k, piece, shape in zip(self.relus, pieces, shapes, strict=True)}

    def scattered(self, shaped: Mapping[int, Tensor], flat: Tensor) -> Tensor:
        """(S, F): the values ``flat``, and in their places those ``shaped``."""
        values = torch.cat([shaped[k].flatten(1) for k in self.relus], 1)
        return values if self.place is None else flat.to(self.dtype).index_copy(1, self.place, values)

    def relu(self, k: int) -> Relu:
        """One of them."""
        op = self.graph.nodes[k].op
        assert isinstance(op, Relu)
        return op


@dataclass
class Split:
    """Linear bounds of a ReLU for each row, and the multipliers of constraints on the signs of its inputs."""

    lines: Lines
    """(R, *shape) each."""
    push: Tensor
    """(R, *shape) what the multipliers add to the coefficients of the inputs."""

    def back(self, a: Tensor, index: Tensor, slope: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Relaxation`; the images of the rows do not matter."""
        through, constant = self.lines.back(a, torch.arange(len(a), device=a.device), slope)
        return through + self.push, constant

    def reach(self, size: Tensor) -> Tensor:
        """See `Relaxation`; without the multipliers."""
        return self.lines.reach(size)

    def to(self, dtype: torch.dtype) -> Split:
        """See `Relaxation`."""
        return Split(self.lines.to(dtype), self.push.to(dtype))


@dataclass
class Signed(Problems):
    """Pairs of image and wrong class, with signs; F is the number of all ReLUs' inputs."""

    signs: Tensor
    """(S, F) int8: 1 and -1 for inputs that are at least and at most 0; 0: either."""
    slopes: Tensor
    """(S, F) float16: of the lower lines."""
    weights: Tensor
    """(S, F) float16: multipliers, in units of the root's ``scale``."""
    candidates: Tensor
    """(S, C) int64: inputs to split by, best first; -1: none."""


class Branching(Search[Signed]):
    """Splits the signs of the ReLUs' inputs; see `Search`."""

    # --- the images and their roots -----------------------------------------------------------------------

    def _begin(self) -> None:
        bounder, x, label, n = self.bounder, self.x, self.label, len(self.x)
        nodes = bounder.fine.nodes
        self.relus = tuple(
            k for k, node in enumerate(nodes) if isinstance(node.op, Relu) and node.op.slope != 1
        )
        self.fine = Form(bounder.fine, torch.float64, self.relus)
        self.coarse = Form(bounder.coarse, torch.float32, self.relus)
        self.reduced: dict[int, Form] = {}
        self.bounds = bounder.linear(self.ball)
        tighten(bounder, self.bounds, steps=HIDDEN)
        rounding = bounder.rounding(self.bounds, label)
        margins = (bounder.margins(self.bounds, label) - rounding).nan_to_num(nan=-math.inf)
        true = one_hot(label, bounder.fine.classes).bool()
        self.low, self.high, self.reach = (
            self._flat({k: side[nodes[k].inputs[0]] for k in self.relus}, n)
            for side in (self.bounds.lower, self.bounds.upper, self.bounds.reach)
        )
        lows, highs = self.fine.shaped(self.low), self.fine.shaped(self.high)
        self.unsure = self._flat({k: self.fine.relu(k).open(lows[k], highs[k]) for k in self.relus}, n)
        self.image, self.other = ((margins <= 0) & ~true).nonzero(as_tuple=True)
        self.deducted = rounding[self.image, self.other]
        self.rounding = rounding.masked_fill(true, 0).amax(1)
        self.margin = margins.masked_fill(true | (margins <= 0), torch.inf).amin(1)
        self.scale = torch.ones(len(self.image), self.low.shape[1], dtype=x.dtype, device=x.device)
        root, width = torch.arange(len(self.image), device=x.device), self.low.shape[1]
        low, high = self.low[self.image], self.high[self.image]
        roots = Signed(
            root,
            margins[self.image, self.other],
            torch.zeros(len(root), width, dtype=torch.int8, device=x.device),
            (high > -low).half(),
            torch.zeros(len(root), width, dtype=torch.float16, device=x.device),
            torch.full((len(root), CANDIDATES), -1, device=x.device),
        )
        self.open = roots[root[:0]]
        self._bound(roots, STEPS)

    # --- problems -----------------------------------------------------------------------------------------

    def _many(self) -> int:
        return self.bounder.fitting(torch.float32, HELD * self.bounder.widest) // 2

    def _divide(self, parents: Signed) -> None:
        children = self._halves(parents)
        if len(children):
            self._bound(children, FEW)

    def _halves(self, parents: Signed) -> Signed:
        """The problems with one more sign, at the candidate whose worse half is best."""
        some = (parents.candidates >= 0).any(1)
        self._leaves(parents[(~some).nonzero()[:, 0]])
        parents = parents[some.nonzero()[:, 0]]
        tried = parents.candidates
        if not len(parents):
            return parents
        row, place = (tried >= 0).nonzero(as_tuple=True)
        worse = torch.full_like(tried, -math.inf, dtype=torch.float64)
        deducted, found = self.deducted[parents.root[row]], []
        for sign in (1, -1):
            value = torch.cat(
                [
                    self._value(self._signed(parents[row[some]], tried[row[some], place[some]], sign))
                    for some in self._batches(len(row), 1)
                ]
            )
            found.append((value - deducted).clamp(max=0))
        worse[row, place] = torch.minimum(*found) + 0.1 * torch.maximum(*found)
        best = tried.gather(1, worse.argmax(1, keepdim=True))[:, 0]
        return self._signed(parents, best, 1).joined(self._signed(parents, best, -1))

    def _signed(self, problems: Signed, place: Tensor, sign: int) -> Signed:
        signs = problems.signs.clone()
        signs[torch.arange(len(place), device=place.device), place] = sign
        return replace(problems, signs=signs)

    def _batches(self, count: int, held: int) -> Iterator[Tensor]:
        """Rows that fit in memory, where each takes ``held`` times as much as a pass."""
        size = self.bounder.fitting(torch.float32, held * self.bounder.widest)
        return iter(torch.arange(count, device=self.x.device).split(size))

    def _bound(self, problems: Signed, steps: int) -> None:
        """Bounds new problems, tries the points where the bounds are attained, and keeps what stays open."""
        for rows in self._batches(len(problems), HELD):
            part = problems[rows]
            image = self.image[part.root]
            self._count(image)
            searched = self._searched(part, steps)
            bound, kept, linear = self._sure(searched)
            bound = torch.fmax(bound, part.bound)  # also of an overflow, which is NaN
            proved = bound > 0
            self._limit(image[proved], bound[proved])
            rest = (~proved).nonzero()[:, 0]
            near = self.x[image[rest]] - self.threat.eps * self.threat.ascent(linear[rest].float())
            self._try(near, image[rest])
            candidates = self._candidates(searched[rest], {k: a[rest] for k, a in kept.items()})
            self.open = self.open.joined(replace(searched[rest], bound=bound[rest], candidates=candidates))

    def _forms(self, problems: Signed) -> Iterator[tuple[Form, Tensor]]:
        """In which network problems are searched, with the rows that are searched there."""
        image = self.image[problems.root]
        count = torch.bincount(image, minlength=len(self.x))
        whole = torch.ones(len(image), dtype=torch.bool, device=image.device)
        for k in (count >= ALONE).nonzero()[:, 0].tolist():
            form = self._form(k)
            if form is not self.coarse:
                rows = (image == k).nonzero()[:, 0]
                whole[rows] = False
                yield form, rows
        if whole.any():
            yield self.coarse, whole.nonzero()[:, 0]

    def _form(self, image: int) -> Form:
        """The reduced network of an image; the whole one, if that takes less."""
        if image not in self.reduced:
            self.reduced = {k: form for k, form in self.reduced.items() if not self.decided[k]}
            self.reduced[image] = self._smaller(image) or self.coarse
        return self.reduced[image]

    def _smaller(self, image: int) -> Form | None:
        graph, unsure = self.bounder.fine, self.unsure[image]
        opened = {k: places[0] for k, places in self.fine.shaped(unsure[None]).items()}
        linear = all(isinstance(graph.nodes[k].op, Relu) for k in graph.nonlinear())
        if not linear or products_reduced(graph, opened) >= products(graph):
            return None
        small = reduced(graph, self.bounds, image, opened, self.bounder.fitting(torch.float64))
        small = small.to(self.x.device, torch.float32)
        return Form(small, torch.float32, tuple(small.nonlinear()), unsure.nonzero()[:, 0])

    def _relaxed(self, problems: Signed, form: Form) -> dict[int, Relaxation]:
        """The linear relaxations of the rows, with multipliers 0."""
        image, signs = self.image[problems.root], form.of(problems.signs)
        low, high = (form.of(side).to(form.dtype)[image] for side in (self.low, self.high))
        low = torch.where(signs > 0, low.clamp(min=0), low)
        high = torch.where(signs < 0, high.clamp(max=0), high)
        found: dict[int, Relaxation] = {}
        if form.place is None:
            found = {k: one.to(form.dtype) for k, one in self.bounds.relaxed.items() if k not in self.relus}
        below, above = form.shaped(low), form.shaped(high)
        for k in form.relus:
            found[k] = Split(form.relu(k).relaxed(below[k], above[k]), torch.zeros_like(below[k]))
        return found

    def _slopes(self, problems: Signed, form: Form) -> dict[int, Tensor]:
        """By index of a ReLU, (S, *shape) slopes, which half precision may have rounded to unsound ones."""
        between = slopes_between(form.graph, form.relus)
        pieces = form.shaped(form.of(problems.slopes).to(form.dtype))
        return {k: piece.clamp(*between[k]) for k, piece in pieces.items()}

    def _flat(self, shaped: Mapping[int, Tensor], count: int) -> Tensor:
        """(S, F) of all ReLUs, of (S, *shape) for each."""
        if not self.relus:
            return torch.zeros(count, 0, dtype=torch.float64, device=self.x.device)
        return torch.cat([shaped[k].flatten(1) for k in self.relus], 1)

    def _pushes(self, problems: Signed, form: Form) -> Tensor:
        """(S, U) what a unit of the multipliers adds to the coefficients of the inputs."""
        return -form.of(problems.signs).to(form.dtype) * form.of(self.scale)[problems.root].to(form.dtype)

    def _carried(
        self, problems: Signed, form: Form, kept: dict[int, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `bounds.linear.carried`, at the problems' own slopes and multipliers."""
        relaxed, dtype = self._relaxed(problems, form), form.dtype
        pushes = form.shaped(self._pushes(problems, form) * form.of(problems.weights).to(dtype))
        for k, push in pushes.items():
            relaxed[k] = replace(_split(relaxed[k]), push=push)
        slopes, image = self._slopes(problems, form), self.image[problems.root]
        return carried(
            form.graph, relaxed, len(form.graph) - 1, self._asked(problems, dtype), image, slopes, kept
        )

    def _asked(self, problems: Signed, dtype: torch.dtype) -> Tensor:
        """(S, K) the linear functions of the logits: the true one minus the other."""
        root = problems.root
        return differences(self.label[self.image[root]], self.other[root], self.bounder.fine.classes, dtype)

    def _value(self, problems: Signed) -> Tensor:
        """(S,) bounds at the problems' own slopes and multipliers, but for rounding, in float32."""
        found = torch.empty(len(problems), dtype=torch.float64, device=self.x.device)
        for form, rows in self._forms(problems):
            some = problems[rows]
            linear, total = self._carried(some, form)
            found[rows] = total + self.ball.least(linear, self.image[some.root])
        return found

    def _sure(self, problems: Signed) -> tuple[Tensor, dict[int, Tensor], Tensor]:
        """(S,) bounds net of all rounding, with the coefficients of the ReLUs and of the images."""
        kept: dict[int, Tensor] = {}
        image, root = self.image[problems.root], problems.root
        linear, total = self._carried(problems, self.fine, kept)
        value = total + self.ball.least(linear, image)
        reach = self.bounds.reach[self.last]
        paths = reach[image, self.label[image]] + reach[image, self.other[root]]
        pushes = self._pushes(problems, self.fine) * problems.weights.double()
        paths = paths + (pushes.abs() * self.reach[image]).sum(1)
        return value - self.bounder.off_at(self.last) * paths - self.deducted[root], kept, linear

    def _searched(self, problems: Signed, steps: int) -> Signed:
        """The same with better slopes and multipliers."""
        slopes, weights = problems.slopes.clone(), problems.weights.clone()
        for form, rows in self._forms(problems) if self.relus else ():
            slopes[rows], weights[rows] = self._searched_in(form, problems[rows], steps)
        return replace(problems, slopes=slopes, weights=weights)

    def _searched_in(self, form: Form, problems: Signed, steps: int) -> tuple[Tensor, Tensor]:
        """(S, F) float16 each: these slopes and multipliers."""
        relaxed, root = self._relaxed(problems, form), problems.root
        units = form.shaped(self._pushes(problems, form))
        image, a = self.image[root], self._asked(problems, form.dtype)
        signed = [k for k, push in units.items() if push.any()]
        weights = form.shaped(form.of(problems.weights).to(form.dtype))

        def value(which: Tensor, variables: dict[int, Tensor]) -> Tensor:
            here: dict[int, Relaxation] = dict(relaxed)
            for k in form.relus:
                push = units[k][which] * (variables[-k] if -k in variables else weights[k][which])
                here[k] = Split(_rows(_split(relaxed[k]).lines, which), push)
            last = len(form.graph) - 1
            linear, total = carried(form.graph, here, last, a[which], image[which], variables)
            return total + self.ball.least(linear, image[which])

        start = self._slopes(problems, form)
        between = slopes_between(form.graph, form.relus)
        start |= {-k: weights[k] for k in signed}
        between |= {-k: (0.0, LARGEST) for k in signed}
        best = ascended(value, start, between, self.deducted[root], steps)
        slopes = form.scattered(best, problems.slopes)
        found = form.scattered({k: best.get(-k, weights[k]) for k in form.relus}, problems.weights)
        return slopes.half(), found.half()

    def _candidates(self, problems: Signed, kept: Mapping[int, Tensor]) -> Tensor:
        """(S, C) the inputs of ReLUs whose relaxation seems to cost most, and the scale of multipliers."""
        padded = torch.full((len(problems), CANDIDATES), -1, device=self.x.device)
        if not self.relus:
            return padded
        a, image = self._flat(kept, len(problems)), self.image[problems.root]
        low, high = self.low[image], self.high[image]
        free = self.unsure[image] & (problems.signs == 0)
        first = (problems.signs == 0).all(1)
        mean = a.abs().mean(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        self.scale[problems.root[first]] = (a.abs() + mean)[first].float()
        gap = -low * high / (high - low).clamp(min=torch.finfo(torch.float64).tiny)
        score = torch.where(a < 0, -a, 0.5 * a) * gap
        cost, place = score.masked_fill(~free, -1).topk(min(CANDIDATES, score.shape[1]), 1)
        found = torch.where(cost >= 0, place, -1)
        found[(cost[:, 0] > 0)[:, None] & (cost <= 0)] = -1
        padded[:, : found.shape[1]] = found
        return padded

    # --- ends ---------------------------------------------------------------------------------------------

    def _leaves(self, problems: Signed) -> None:
        """Solves problems without an undecided sign. An image whose problem is neither proved nor gives an
        adversarial example cannot be certified any more."""
        if not len(problems):
            return
        bound, box = problems.bound.clone(), self.threat.norm == "linf"
        for way in self._programmed(problems) if box else [self._searched(problems, LONG)]:
            bound = torch.fmax(bound, self._sure(way)[0])
        self._limit(self.image[problems.root], bound)

    def _programmed(self, problems: Signed) -> list[Signed]:
        """The problems with the multipliers that linear programmes find, whose solutions are tried."""
        found: list[Signed] = []
        for k in range(len(problems)):
            one = problems[torch.tensor([k], device=self.x.device)]
            place, solved = self._program(one)
            for number, (point, multipliers) in enumerate(solved):
                if number == len(found):
                    found.append(
                        replace(problems, weights=torch.zeros_like(problems.signs, dtype=torch.float64))
                    )
                unit = self.scale[one.root][0, place].double()
                found[number].weights[k, place] = multipliers.to(place.device) / unit
                near = point.to(place.device).view(1, *self.x.shape[1:])
                self._try(near, self.image[one.root])
        return found

    def _program(self, one: Signed) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The inputs (M,) of ReLUs that have signs in a problem, and the solutions of `lowest`."""
        graph, image = self.bounder.fine, self.image[one.root]
        rows = [torch.zeros(0, self.x[0].numel(), dtype=torch.float64, device=self.x.device)]
        ends, places = [rows[0].new_zeros(0)], [torch.zeros(0, dtype=torch.int64, device=self.x.device)]
        before = 0
        for k, signs in self.fine.shaped(one.signs.double()).items():
            signed = signs.flatten().nonzero()[:, 0]
            if len(signed):
                a = torch.diag(signs.flatten())[signed].view(-1, *graph.nodes[k].shape)
                relaxed = self._relaxed(one[torch.zeros_like(signed)], self.fine)
                linear, total = carried(graph, relaxed, graph.nodes[k].inputs[0], a, image.expand(len(a)))
                rows.append(linear.flatten(1))
                ends.append(total)
                places.append(signed + before)
            before += signs.numel()
        function, _ = self._carried(replace(one, weights=torch.zeros_like(one.weights)), self.fine)
        box = (side[image[0]].flatten().cpu() for side in (self.ball.lower, self.ball.upper))
        solved = lowest(function.flatten().cpu(), torch.cat(rows).cpu(), torch.cat(ends).cpu(), *box)
        return torch.cat(places), solved


def _split(relaxed: Relaxation) -> Split:
    assert isinstance(relaxed, Split)
    return relaxed


def _rows(lines: Lines, which: Tensor) -> Lines:
    return Lines(lines.lower[which], lines.upper[which], lines.shift[which])
