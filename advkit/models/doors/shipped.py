"""``advkit:NAME``: the models that ship with advkit."""

from __future__ import annotations

from advkit.core.errors import ConfigError
from advkit.models.checkpoint import load_checkpoint
from advkit.models.door import Door, Found, Said, door
from advkit.models.shipped import PREFIX, shipped


@door("shipped", PREFIX, summary="advkit:NAME, a model that ships with advkit (`advkit models ls`)")
class Shipped(Door):
    """A file with a card, in the package."""

    def open(self, where: str, said: Said) -> Found:
        """The model with its card."""
        path = shipped(where)
        if said.state is not None or said.untrained:
            raise ConfigError(f"{where} has its own weights; leave --weights out")
        return Found(load_checkpoint(path))
