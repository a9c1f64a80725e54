"""Weights that something else wrote, put into a network that is named."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from advkit.core.errors import ModelError, listed
from advkit.core.notes import Note
from advkit.models import match
from advkit.models.card import Preprocessing
from advkit.models.checkpoint import State, load_weights, refuse_nonfinite
from advkit.models.door import Said


def fill(
    network: nn.Module, state: Mapping[str, Tensor], said: Said, where: str
) -> tuple[Preprocessing | None, list[Note]]:
    """Loads ``state`` into ``network``; how the file says that images are normalised, and notes.

    Args:
        state: as a file holds them, under names with any prefix and in any precision.
        where: names the network in messages.

    Raises:
        ModelError: the weights are not those of the network, or not finite.
    """
    named = str(said.file or where)
    state, notes = in_float32(state)
    own = {name: tensor.shape for name, tensor in network.state_dict().items() if torch.is_tensor(tensor)}
    try:
        found = match.match(state, own)
    except match.Misfit as error:
        raise ModelError(
            f"{named} does not fit {where}: {error}; take the file that belongs to the model"
        ) from error
    load_weights(network, found.state, f"{named} does not fit {where}")
    refuse_nonfinite(network, named, "take another copy")
    preprocessing, more = read_in(found, said)
    return preprocessing, [*notes, *more]


def in_float32(state: Mapping[str, Tensor]) -> tuple[State, list[Note]]:
    """Weights of another precision are computed with in float32, as images are."""
    others = {str(tensor.dtype)[6:] for tensor in state.values() if tensor.is_floating_point()} - {"float32"}
    if not others:
        return dict(state), []
    said = f"the weights are {' and '.join(sorted(others))}; they are computed with in float32"
    converted = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }
    return converted, [Note("weights-converted", said)]


def read_in(found: match.Match, said: Said) -> tuple[Preprocessing | None, list[Note]]:
    """How a file of weights says that images are normalised, unless the caller does, and the notes on it."""
    notes = []
    if not found.by_name:
        how = "its tensors have other names, and were matched by the numbers in these and by their shapes"
        notes.append(Note("weights-by-shape", how))
    normaliser = {
        named[3]: tuple(tensor.flatten().tolist())
        for name, tensor in found.left.items()
        if (named := match.NORMALISER.fullmatch(name)) and tensor.is_floating_point()
    }
    mean = normaliser.get("mean", normaliser.get("mu", ()))
    std = normaliser.get("std", normaliser.get("sigma", ()))
    channels = said.shape[0] if said.shape else max(len(mean), len(std))
    wanted = (mean or std) and said.normalisation_open
    usable = all(len(values) in (0, 1, channels) for values in (mean, std))
    if wanted and usable and max(mean, default=0.0) <= 1 and min(std, default=1.0) > 0:
        mean, std = (tuple(round(value, 6) for value in values) for values in (mean, std))
        how = f"normalised as the file says (mean {mean}, std {std})"
        return Preprocessing(mean=mean, std=std), [*notes, Note("normalisation-read", how)]
    if found.left:
        notes.append(Note("weights-left-out", f"no layer takes {listed(found.left)} of the file; left out"))
    return None, notes
