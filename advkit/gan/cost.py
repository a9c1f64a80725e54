"""What a step of GAN training costs, counted on one."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, nn

from advkit.gan.game import Game
from advkit.training.objective import Passes


def passes(game: Game) -> dict[str, Passes]:
    """What one step sends through each network, by its name; ``game`` runs that step.

    Backwards are counted whether they reach the network's weights or only pass through to the generator.
    """
    forwards: Counter[str] = Counter()
    backwards: Counter[str] = Counter()

    def watch(name: str, network: nn.Module) -> Any:
        def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
            forwards[name] += len(output)
            if output.requires_grad:
                output.register_hook(lambda gradient: backwards.update({name: len(gradient)}))

        return network.register_forward_hook(count)

    hooks = [watch(name, network) for name, network in game.counted.items()]
    game.update()
    for hook in hooks:
        hook.remove()
    return {name: Passes(forwards[name], backwards[name]) for name in game.counted}
