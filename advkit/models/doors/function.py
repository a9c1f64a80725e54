"""``package.module:function``: whatever a user's own function makes."""

from __future__ import annotations

from torch import nn

from advkit.core import rng
from advkit.core.errors import ModelError
from advkit.core.named import named
from advkit.models.black_box import BlackBox
from advkit.models.card import ModelCard
from advkit.models.door import DOORS, Door, Found, Said, door
from advkit.models.model import Model
from advkit.models.weights import fill


@door("function", summary="package.module:function, called without arguments")
class Function(Door):
    """Imports the module and calls the function: this runs their code."""

    def open(self, where: str, said: Said) -> Found:
        """What the function returns, with the weights of a file if there is one."""
        if said.access is not None:
            thing = named(where, ModelError, f"check the model's name {where!r}")
            return DOORS.get("black-box")().open(thing, said)
        with rng.scope("cpu", 0, "build"):
            module = made(where)
        if isinstance(module, BlackBox):
            return DOORS.get("black-box")().open(module, said)
        if said.state is None:
            return Found(module, where)
        inner = module.network if isinstance(module, Model) else module
        preprocessing, notes = fill(inner, said.state, said, where)
        return Found(module, where, preprocessing=preprocessing, notes=tuple(notes))

    def build(self, card: ModelCard) -> nn.Module:
        """The module that the function returns."""
        return made(card.architecture)


def made(where: str) -> nn.Module:
    """The module that a function ``package.module:function`` returns.

    Raises:
        ModelError: it cannot be imported or called, or what it returns is no module.
    """
    found = named(where, ModelError, f"check the model's name {where!r}")
    if not callable(found):
        raise ModelError(f"{where!r} is no function; name one that returns a torch.nn.Module")
    try:
        module = found()
    except (Exception, SystemExit) as error:  # the user's own code
        raise ModelError(
            f"{where}() failed ({type(error).__name__}: {error}); it is called without arguments"
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"{where}() returned {type(module).__name__}; it must return a torch.nn.Module; "
            "a function of arrays is a black box, with --access scores or decisions"
        )
    return module
