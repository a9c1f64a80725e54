"""What a user can get wrong before training begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from advkit.data.data import Data
from advkit.errors import ConfigError, DataError
from advkit.gan.adversarial import GanGame
from advkit.gan.train import begin


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 41}, r"batch size 41 is larger than the 40 images of 'toy'; .*--batch-size"),
        ({"arch": "conv-gn"}, r"no pair called 'conv-gn' \(did you mean 'conv-gan'\?\); known: conv-gan"),
        ({"arch": "lenet"}, "no pair called 'lenet'"),
        ({"loss": "minimx"}, r"no GAN loss called 'minimx' \(did you mean 'minimax'\?\)"),
        ({"generator": {"latent_dimm": 4}}, r"unknown key 'latent_dimm' \(did you mean 'latent_dim'\?\)"),
        ({"discriminator": {"dropout": 1.5}}, "dropout"),
        ({"packing": 3}, r"batch of 8 images is no multiple of 3 \(packing 3, 1 at work\); .*--batch-size"),
        ({"packing": 2, "conditional": "projection"}, "packs mix classes"),
        ({"augment_target": 0.6}, "nothing to adapt"),
        ({"kind": "vae", "arch": "conv-gan", "discriminator": {}}, "there is no vae called 'conv-gan'"),
        ({"name": "../gan"}, "cannot be the name of a model"),
    ],
)
def test_one_sentence(changes: dict, said: str, data: Data, config: Callable) -> None:
    with pytest.raises(ConfigError, match=said) as fault:
        begin(config(**changes), data, torch.device("cpu"))
    assert "\n" not in str(fault.value)


def test_images_that_are_all_the_same(data: Data, config: Callable) -> None:
    alike = replace(data, images=data.images[:1].expand(40, 1, 8, 8).clone())
    with pytest.raises(DataError, match="images of 'toy' are all the same"):
        begin(config(), alike, torch.device("cpu"))


def test_as_many_images_as_the_batch_are_enough(data: Data, config: Callable) -> None:
    game = GanGame(config(batch_size=40), data, torch.device("cpu"))
    assert torch.isfinite(game.play()).all()


def test_an_alias_of_a_loss(data: Data, config: Callable) -> None:
    game = GanGame(config(loss="bce"), data, torch.device("cpu"))
    assert type(game.loss).__name__ == "NonSaturating"
