"""The threat model to use when none, or only a part of one, is given."""

from __future__ import annotations

from typing import Any

from advkit.core.errors import ConfigError
from advkit.core.progress import Progress
from advkit.core.threat import Threat
from advkit.data.data import Data
from advkit.models.model import Model


def default_threat(model: Model, data: Data) -> Threat:
    """The threat model that the model was hardened for, else the default of the data set.

    Raises:
        ConfigError: there is neither.
    """
    if model.card.threat is not None:
        return Threat(model.card.threat.norm, model.card.threat.eps)
    if data.threat is not None:
        return data.threat
    raise ConfigError(f"data {data.name!r} has no default threat model; give --norm and --eps (threat=...)")


def resolve(given: Any, model: Model, data: Data) -> Threat:
    """A threat model for these images: ``given``, as `Threat.of` takes it, else the default one.

    Raises:
        ConfigError: it is none, it allows every image, or there is no default.
    """
    threat = default_threat(model, data) if given is None else Threat.of(given)
    threat.refuse_misfit(data.shape)
    return threat


def choose(norm: str | None, eps: float | None, model: Model, data: Data, progress: Progress) -> Threat:
    """The given threat model, completed from the default one; ``progress`` says what was assumed.

    Raises:
        ConfigError: a norm other than the default one, without a budget; a budget that allows every image;
            or no default.
    """
    if norm is not None and eps is not None:
        return resolve((norm, eps), model, data)
    assumed = default_threat(model, data)
    if norm is not None and norm != assumed.norm:
        raise ConfigError(f"--norm {norm} needs its budget; give --eps too")
    origin = "that the model was trained against" if model.card.threat else f"of data set {data.name}"
    if eps is not None:
        chosen = resolve((assumed.norm, eps), model, data)
        progress.say(f"threat model: {chosen} (the norm is the one {origin}; --norm chooses another)")
        return chosen
    progress.say(f"threat model: {assumed} (the one {origin}; --norm and --eps choose another)")
    return assumed
