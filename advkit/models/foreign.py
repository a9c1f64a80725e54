"""Networks that advkit does not register: torchvision's classifiers, and whatever a user's function makes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from advkit.core.errors import ConfigError, ModelError, did_you_mean
from advkit.core.named import named
from advkit.models.card import Shape

TORCHVISION = "torchvision:"

_PLAIN = ("googlenet", "inception_v3")
_PLAINLY = {"aux_logits": False, "transform_input": False, "init_weights": True}
"""Without auxiliary outputs and hidden preprocessing, both of which would make them exceptions everywhere."""


AUXILIARY = re.compile(r"(.*\.)?(aux1|aux2|AuxLogits)\.")
"""Names of auxiliary outputs' weights, which files of torchvision's own weights hold."""


def torchvision_name(where: str) -> str:
    """``resnet18`` of ``torchvision:resnet18``.

    Raises:
        ConfigError: torchvision has no classifier of that name.
    """
    from torchvision import models as zoo  # here, since it takes a second and most work needs none of it

    name = where.removeprefix(TORCHVISION)
    known = zoo.list_models(module=zoo)
    if name not in known:
        raise ConfigError(
            f"torchvision has no classifier called {name!r}{did_you_mean(name, known)}; "
            "its documentation lists them (for example resnet18, vgg16_bn, vit_b_16)"
        )
    return name


def torchvision_network(where: str, *, shape: Shape, classes: int | None) -> nn.Module:
    """A freshly initialised classifier of torchvision (from PyTorch's global generator).

    Raises:
        ConfigError: unknown name, no class count, or images it cannot take.
    """
    from torchvision import models as zoo

    name = torchvision_name(where)
    if classes is None or classes < 2:
        raise ConfigError(f"{where} without trained weights needs the number of classes; pass --classes")
    if shape[0] != 3:
        raise ConfigError(f"{where} takes images of 3 channels, not {shape[0]}; choose another architecture")
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
        raise ConfigError(f"{where} cannot take {size} images ({reason}); resize them") from error
    return network


@dataclass(frozen=True)
class Pretrained:
    """What torchvision says of a classifier's own weights."""

    shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: tuple[str, ...]
    resize: int
    """The shorter side to which images are resized, before their middle is cut out."""
    bicubic: bool
    """Whether they are resized by bicubic interpolation, else bilinear."""


def pretrained(where: str) -> Pretrained:
    """The facts about torchvision's own weights for a network; nothing is downloaded."""
    default = _default_weights(where)
    transforms = default.transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if torchvision_name(where) in _PLAIN:
        mean, std = (0.5,) * 3, (0.5,) * 3  # what their hidden preprocessing comes to
    size = transforms.crop_size[0]
    labels, bicubic = tuple(default.meta["categories"]), transforms.interpolation.value == "bicubic"
    return Pretrained((3, size, size), mean, std, labels, transforms.resize_size[0], bicubic)


def download(where: str) -> dict[str, Tensor]:
    """Torchvision's own weights, from its cache or the network.

    Raises:
        ModelError: they cannot be had.
    """
    default = _default_weights(where)
    try:
        state = default.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"cannot download the weights of {where} ({error}); go online, or fetch {default.url} elsewhere "
            "and give the file with --weights"
        ) from error
    return dict(state)


def _default_weights(where: str) -> Any:
    from torchvision import models as zoo

    return zoo.get_model_weights(torchvision_name(where)).DEFAULT


def size_bound(where: str) -> bool:
    """Whether the weights of a network of torchvision fit one image size only."""
    return where.removeprefix(TORCHVISION).startswith(("vit_", "maxvit"))


def factory_module(where: str) -> nn.Module:
    """Imports the module of ``package.module:function`` and calls the function: this runs their code.

    Raises:
        ModelError: it cannot be imported or called, or what it returns is no module.
    """
    found = named(where, ModelError, f"check the model's name {where!r}")
    if not callable(found):
        raise ModelError(f"{where!r} is no function; name one that returns a torch.nn.Module")
    try:
        module = found()
    except Exception as error:  # the user's own code
        raise ModelError(
            f"{where}() failed ({type(error).__name__}: {error}); it is called without arguments"
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{where}() returned {type(module).__name__}; it must return a torch.nn.Module")
    return module
