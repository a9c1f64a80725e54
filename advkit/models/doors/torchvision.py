"""``torchvision:NAME``: the classifiers of torchvision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from advkit.core.errors import ConfigError, ModelError, did_you_mean
from advkit.models.card import Preprocessing, Shape
from advkit.models.checkpoint import State
from advkit.models.door import Fit, door
from advkit.models.zoo import Pretrained, Zoo

_PLAIN = ("googlenet", "inception_v3")
_PLAINLY = {"aux_logits": False, "transform_input": False, "init_weights": True}
"""Without auxiliary outputs and hidden preprocessing, both of which would make them exceptions everywhere."""
_AUXILIARY = re.compile(r"(.*\.)?(aux1|aux2|AuxLogits)\.")
"""Names of auxiliary outputs' weights, which files of torchvision's own weights hold."""


@door("torchvision", "torchvision:", summary="torchvision:NAME, a classifier of torchvision")
class Torchvision(Zoo):
    """With torchvision's own weights, those of a file, or none."""

    library = "torchvision"

    def pretrained(self, where: str) -> Pretrained:
        """What torchvision says of its default weights."""
        name, default = _name(where), _default_weights(where)
        transforms = default.transforms()
        mean, std = tuple(transforms.mean), tuple(transforms.std)
        if name in _PLAIN:
            mean, std = (0.5,) * 3, (0.5,) * 3  # what their hidden preprocessing comes to
        size, labels = transforms.crop_size[0], tuple(default.meta["categories"])
        return Pretrained(
            where,
            (3, size, size),
            len(labels),
            Preprocessing(mean=mean, std=std),
            labels,
            fit=Fit(transforms.resize_size[0], size, transforms.interpolation.value == "bicubic"),
            size_bound=name.startswith(("vit_", "maxvit")),
        )

    def network(self, architecture: str, shape: Shape, classes: int, config: dict[str, Any]) -> nn.Module:
        """Built for the images' size, where the architecture depends on it."""
        from torchvision import models as zoo

        name = _name(architecture)
        if shape[0] != 3:
            raise ConfigError(
                f"{architecture} takes images of 3 channels, not {shape[0]}; choose another architecture"
            )
        settings: dict[str, Any] = dict(_PLAINLY) if name in _PLAIN else {}
        if name == "maxvit_t":
            settings["input_size"] = shape[1:]
        elif name.startswith("vit_"):
            settings["image_size"] = shape[1]
        try:
            network: nn.Module = zoo.get_model(name, weights=None, num_classes=classes, **settings)
        except (ValueError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            size = f"{shape[1]}x{shape[2]}"
            raise ConfigError(f"{architecture} cannot take {size} images ({reason}); resize them") from error
        return network

    def weights(self, where: str) -> State:
        """Torchvision's own, from its cache or the network."""
        default = _default_weights(where)
        try:
            state = default.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"cannot download the weights of {where} ({error}); go online, or fetch {default.url} "
                "elsewhere and give the file with --weights"
            ) from error
        return dict(state)

    def _needed(self, state: Mapping[str, Tensor]) -> State:
        return {name: state[name] for name in state if not _AUXILIARY.match(name)}


def _name(where: str) -> str:
    """``resnet18`` of ``torchvision:resnet18``.

    Raises:
        ConfigError: torchvision has no classifier of that name.
    """
    from torchvision import models as zoo  # here, since it takes a second and most work needs none of it

    name = where.removeprefix("torchvision:")
    known = zoo.list_models(module=zoo)
    if name not in known:
        raise ConfigError(
            f"torchvision has no classifier called {name!r}{did_you_mean(name, known)}; "
            "its documentation lists them (for example resnet18, vgg16_bn, vit_b_16)"
        )
    return name


def _default_weights(where: str) -> Any:
    from torchvision import models as zoo

    return zoo.get_model_weights(_name(where)).DEFAULT
