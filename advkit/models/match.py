"""Which tensors of a foreign state dict belong to which of a network, by their names or else their shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advkit.core.errors import ConfigError, ModelError, by_size
from advkit.models.card import Shape
from advkit.models.checkpoint import State, first_mismatch
from advkit.models.network import Network, build

SIZES = {1: (28, 8, *range(9, 65)), 3: (32, 64, *range(8, 64))}
"""Image sizes to try by number of channels, the common ones first."""

_COUNTER = "num_batches_tracked"  # of batch norm; older files lack it, and nothing depends on it
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
"""Parts of names that DataParallel, `torch.compile` and their like put anywhere, even several times."""
_MEASURED = re.compile(
    r"n_averaged|initted|(.*[._])?(acc|accuracy|auc|best|correct|criterion|decay|epoch|error|f1|iter|iters|iteration|"
    r"iterations|loss|lr|metric|num_updates|score|seed|step|steps|top1|top5|total|updates|value)([._].*)?"
)
"""Names of numbers that training code keeps among the weights."""
NORMALISER = re.compile(r"(.*\.)?(new_)?(mean|mu|std|sigma)")
"""Names of what some files hold to normalise images."""


class Misfit(ModelError):
    """Tensors that are not those of a network; the message is why, to go into another one."""


@dataclass(frozen=True)
class Match:
    """The tensors of a network, found in a foreign state dict."""

    state: State
    """Under the network's own names."""
    by_name: bool
    """Else the names differ, and numbers in the names or the shapes have decided without any doubt."""
    left: Mapping[str, Tensor]
    """What the file holds besides and no layer takes: metrics, normalisers, copies."""


@dataclass(frozen=True)
class Fit:
    """One way to read a state dict."""

    architecture: str
    shape: Shape
    classes: int | None
    match: Match
    size_open: bool
    """The weights fit images of other sizes too."""


def fits(state: Mapping[str, Tensor], names: Sequence[str], shape: Shape | None = None) -> list[Fit]:
    """One fit for each of the architectures ``names`` that the tensors fit, with its default parameters.

    Args:
        state: a state dict of unknown origin.
        shape: the images it is probably for, tried first.
    """
    found = (_fit(state, name, shape) for name in names)
    return [fit for fit in found if fit is not None]


def misfit(state: Mapping[str, Tensor], name: str, shape: Shape | None = None) -> str:
    """Why the tensors do not fit the architecture ``name``, on images of ``shape`` or a common size."""
    shape = shape or _shapes(state)[0]
    expected = _expected(name, shape, _classes(state, name, shape))
    if expected is None:
        return "its parameters have no defaults"
    try:
        match(state, expected)
    except Misfit as error:
        return f"on {by_size(shape)} images, {error}"
    return f"they fit {by_size(shape)} images alone"


def match(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> Match:
    """``state`` under the names of ``expected``.

    Tensors are matched by name, whatever prefixes the names have. Where the names differ, they are matched by
    the numbers in them, or by shapes of which no two are equal: the order in a file is no evidence.

    Raises:
        Misfit: the tensors are others, or several matches are possible.
    """
    covers = list(_covers(state, list(expected)))
    fitting = [(lead, names) for lead, names in covers if _agree(state, expected, names)]
    if len(fitting) > 1 and not all(_same(state, fitting[0][1], names) for _, names in fitting[1:]):
        keys = ", ".join(repr(lead.rstrip(".")) for lead, _ in fitting)
        raise Misfit(f"it holds several copies of the network ({keys}): name one with --weights-key")
    if fitting:
        _, names = fitting[0]
        lead = [*_common(map(_bare, _weights(names.values())))][-1]
        taken = {name for _, each in fitting for name in each.values()}
        left = {name: state[name] for name in state if name not in taken and not name.endswith(_COUNTER)}
        foreign = next((name for name in left if not _harmless(name, left[name], lead)), None)
        if foreign is not None:
            raise Misfit(f"{foreign!r} is unexpected")
        return Match(_filled(state, expected, names), True, left)
    own, theirs = _weights(expected), _layers(state)
    if covers:
        named = {name: state[covers[0][1][name]] for name in own}
        raise Misfit(first_mismatch({name: expected[name] for name in own}, named))
    if len(own) != len(theirs):
        differs = first_mismatch({name: expected[name] for name in own}, {n: state[n] for n in theirs})
        raise Misfit(f"they are {len(theirs)} tensors where {len(own)} are wanted ({differs})")
    pairs = _by_number(state, expected, own, theirs) or _by_shape(state, expected, own, theirs)
    # What has the same name on both sides must not be taken for another.
    bare = {_bare(name) for name in theirs}
    if any(_bare(name) in bare and _bare(name) != _bare(their) for name, their in pairs.items()):
        raise Misfit("its names agree only in part with the network's, and contradict the shapes")
    return Match(_filled(state, expected, pairs), False, {})


def _covers(state: Mapping[str, Tensor], own: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each prefix under which the file has all names of the network, and these names to the file's own."""
    bare = {_bare(name): name for name in state}
    mine = {_bare(name): name for name in own}
    if len(bare) < len(state) or len(mine) < len(own):  # "module" is a name here, and no wrapper
        bare, mine = {name: name for name in state}, {name: name for name in own}
    weights = _weights(mine)
    for cut in _common(weights) if weights else ():
        wanted = [name.removeprefix(cut) for name in weights]
        leads = [name.removesuffix(wanted[0]) for name in bare if f".{name}".endswith(f".{wanted[0]}")]
        leads = [lead for lead in leads if all(lead + name in bare for name in wanted)]
        for lead in leads:
            names = {name: bare.get(lead + key.removeprefix(cut)) for key, name in mine.items()}
            yield (
                bare[lead + wanted[0]].removesuffix(wanted[0]),
                {name: their for name, their in names.items() if their is not None},
            )
        if leads:
            return


def _common(names: Iterable[str]) -> Iterator[str]:
    """The prefixes that all names have, from none to the longest that leaves a layer's name."""
    split = [name.split(".")[:-2] for name in names]
    lead = ""
    yield lead
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            return
        lead += f"{parts[0]}."
        yield lead


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _agree(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], names: Mapping[str, str]) -> bool:
    return all(state[their].shape == expected[name] for name, their in names.items())


def _same(state: Mapping[str, Tensor], one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(torch.equal(state[one[name]], state[other[name]]) for name in one if name in other)


def _harmless(name: str, tensor: Tensor, lead: str) -> bool:
    """Whether a tensor that no layer takes can be left out: it is no layer's that the network lacks."""
    if tensor.dim() == 0 and _MEASURED.fullmatch(_bare(name)):
        return True
    if not lead or _bare(name).startswith(lead):
        return False
    known = _MEASURED.fullmatch(_bare(name)) or NORMALISER.fullmatch(name)
    row = max(tensor.shape, default=1) == tensor.numel()
    return tensor.dim() == 0 or not tensor.is_floating_point() or (known is not None and row)


def _filled(state: Mapping[str, Tensor], expected: Iterable[str], pairs: Mapping[str, str]) -> State:
    return {name: state[pairs[name]] if name in pairs else torch.tensor(0) for name in expected}


def _by_number(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], own: Sequence[str], theirs: Sequence[str]
) -> dict[str, str] | None:
    """Pairs of names that differ in nothing but their numbers, in ascending order: layers of a sequence."""
    mine, other = _groups(own), _groups(theirs)
    if {key: len(group) for key, group in mine.items()} != {key: len(group) for key, group in other.items()}:
        return None
    pairs = {a: b for key in mine for a, b in zip(mine[key], other[key], strict=True)}
    return pairs if all(expected[a] == state[b].shape for a, b in pairs.items()) else None


def _groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Names that are the same but for numbers and a common prefix, each group in the order of the numbers."""
    lead = [*_common([_bare(name) for name in names])][-1]
    found: dict[str, list[tuple[list[int], str]]] = {}
    for name in names:
        rest = _bare(name).removeprefix(lead)
        found.setdefault(re.sub(r"\d+", "#", rest), []).append(([*map(int, re.findall(r"\d+", rest))], name))
    return {key: [name for _, name in sorted(group)] for key, group in found.items()}


def _by_shape(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], own: Sequence[str], theirs: Sequence[str]
) -> dict[str, str]:
    """Pairs of equal shape, and of an equal last part of the name (weight, bias) where these are the same."""
    for last in (lambda name: name.rpartition(".")[2], lambda _: ""):
        mine = [(tuple(expected[name]), last(name)) for name in own]
        other = [(tuple(state[name].shape), last(name)) for name in theirs]
        if Counter(mine) == Counter(other):
            twice = next((key for key, count in Counter(mine).items() if count > 1), None)
            if twice is None:
                return {name: theirs[other.index(key)] for name, key in zip(own, mine, strict=True)}
            first, second, *_ = (name for name, key in zip(own, mine, strict=True) if key == twice)
            raise Misfit(
                f"the names are others ({theirs[0]!r} where {own[0]!r} is wanted), and shapes do not tell "
                f"{first!r} from {second!r}: rename the tensors, or name a network whose names they are"
            )
    if {_bare(name) for name in own} & {_bare(name) for name in theirs}:
        raise Misfit(first_mismatch({name: expected[name] for name in own}, {n: state[n] for n in theirs}))
    inorder = {mine: state[their] for mine, their in zip(own, theirs, strict=True)}
    raise Misfit(first_mismatch({name: expected[name] for name in own}, inorder) or "the shapes differ")


def _fit(state: Mapping[str, Tensor], name: str, shape: Shape | None) -> Fit | None:
    shapes = list(dict.fromkeys(([shape] if shape else []) + _shapes(state)))
    classes = _classes(state, name, shapes[0])
    for candidate in shapes:
        expected = _expected(name, candidate, classes)
        if expected is None:
            continue
        if len(_weights(expected)) != len(_layers(state)) and not any(_covers(state, list(expected))):
            return None
        try:
            found = match(state, expected)
        except Misfit:
            continue
        channels, height, width = candidate
        other = _expected(name, (channels, height + 1, width), classes)
        knows = _meta(name, candidate, classes).classes
        return Fit(name, candidate, knows, found, size_open=other == expected)
    return None


def _shapes(state: Mapping[str, Tensor]) -> list[Shape]:
    """Image shapes to try; the channels are those of the first convolution, if that comes first."""
    first = next((tensor for tensor in state.values() if tensor.dim() in (2, 4)), None)
    channels: Iterable[int] = SIZES
    if first is not None and first.dim() == 4 and first.shape[1] in SIZES:
        channels = [first.shape[1]]
    return [(channel, size, size) for channel in channels for size in SIZES[channel]]


def classes_in(
    state: Mapping[str, Tensor], expected: Callable[[int], Mapping[str, torch.Size] | None]
) -> int | None:
    """How many classes the weights were trained for.

    Args:
        state: a state dict in any order.
        expected: the shapes that a network of so many classes has; None where there is no such network.

    Returns:
        The size of a tensor whose size follows the classes, where the names agree; else of the last tensor.
    """
    two, three = expected(2) or {}, expected(3) or {}
    _, cover = next(_covers(state, list(two)), ("", {name: name for name in two}))
    for name, shape in two.items():
        tensor = state.get(cover.get(name, ""))
        if tensor is not None and shape != three.get(name) and tensor.dim() > 0:
            return len(tensor)
    return next((len(tensor) for tensor in reversed(list(state.values())) if tensor.dim() > 0), None)


def _classes(state: Mapping[str, Tensor], name: str, shape: Shape) -> int | None:
    return classes_in(state, lambda classes: _expected(name, shape, classes))


def _expected(name: str, shape: Shape, classes: int | None) -> dict[str, torch.Size] | None:
    """Shapes of the tensors of a network that is not really built; None where it cannot be."""
    try:
        network = _meta(name, shape, classes)
    except ConfigError:
        return None
    return {key: tensor.shape for key, tensor in network.state_dict().items()}


def _meta(name: str, shape: Shape, classes: int | None) -> Network:
    with torch.device("meta"):
        return build(name, shape=shape, classes=classes)


def _weights(state: Iterable[str]) -> list[str]:
    return [name for name in state if not name.endswith(_COUNTER)]


def _layers(state: Mapping[str, Tensor]) -> list[str]:
    """Names of what can be a layer's, in the order of the file."""
    return [n for n in _weights(state) if not (state[n].dim() == 0 and _MEASURED.fullmatch(_bare(n)))]
