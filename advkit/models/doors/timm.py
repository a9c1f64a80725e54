"""``timm:NAME``: the classifiers of timm, and folders that timm has saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import nn

from advkit.core import files
from advkit.core.errors import ConfigError, ModelError, did_you_mean
from advkit.models.card import Preprocessing, Shape
from advkit.models.checkpoint import State, open_checkpoint
from advkit.models.door import Fit, door
from advkit.models.header import damaged
from advkit.models.zoo import Pretrained, Zoo, needs


@door("timm", "timm:", summary="timm:NAME, or timm:FOLDER with its config.json")
class Timm(Zoo):
    """With timm's own weights, those of a file or folder, or none."""

    library = "timm"

    def pretrained(self, where: str) -> Pretrained:
        """What timm says of a classifier's weights, or a folder of its own."""
        timm, name = _timm(where), where.removeprefix("timm:")
        labels: list[str] | None
        if (folder := _folder(where)) is not None:
            try:
                about = files.parsed(files.read(folder / "config.json"))
                name, given = about["architecture"], about.get("pretrained_cfg", {})
            except (OSError, ValueError, KeyError) as error:
                raise damaged(folder / "config.json") from error
            arguments = {key: value for key, value in about.get("model_args", {}).items() if key not in _OURS}
            labels, classes = about.get("label_names"), about.get("num_classes", given.get("num_classes"))
        if not timm.is_model(name):
            known = timm.list_models() + timm.list_pretrained()
            raise ConfigError(
                f"timm has no classifier called {name!r}{did_you_mean(name, known)}; timm.list_pretrained() "
                "lists them (for example resnet18.a1_in1k)"
            )
        if folder is None:
            found = timm.get_pretrained_cfg(name)
            given, arguments = ({} if found is None else found.to_dict()), {}
            labels, classes = given.get("label_names"), given.get("num_classes") or 0
        data = timm.data.resolve_data_config(pretrained_cfg=given, verbose=False)
        channels, height, width = data["input_size"]
        if classes == 1000 and not labels:
            labels = timm.data.ImageNetInfo("imagenet-1k").label_descriptions()
        return Pretrained(
            f"timm:{name}",
            (channels, height, width),
            classes,
            Preprocessing(mean=tuple(data["mean"]), std=tuple(data["std"])),
            tuple(labels or ()),
            {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()},
            _fit(height, width, data),
            size_bound=bool(given.get("fixed_input_size")),
        )

    def network(self, architecture: str, shape: Shape, classes: int, config: dict[str, Any]) -> nn.Module:
        """Built for the images' size, where the architecture depends on it."""
        timm, name = _timm(architecture), architecture.removeprefix("timm:")
        settings = {"pretrained": False, "num_classes": classes, "in_chans": shape[0], **config}
        try:
            try:
                network: nn.Module = timm.create_model(name, img_size=tuple(shape[1:]), **settings)
            except TypeError:  # it has no size
                network = timm.create_model(name, **settings)
        except (ValueError, AssertionError, RuntimeError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            size = f"{shape[1]}x{shape[2]}"
            raise ConfigError(f"{architecture} cannot take {size} images ({reason}); resize them") from error
        return network

    def weights(self, where: str) -> State:
        """Of a folder its file, else timm's own, from its cache or the network."""
        timm = _timm(where)
        if (folder := _folder(where)) is not None:
            files = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
            state = open_checkpoint(next((path for path in files if path.exists()), files[0]))
            assert isinstance(state, dict)
            return state
        name = where.removeprefix("timm:")
        try:
            return dict(timm.create_model(name, pretrained=True).state_dict())
        except Exception as error:  # the hub's client may fail in many ways
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            found = timm.get_pretrained_cfg(name)
            place = f"https://huggingface.co/{found.hf_hub_id}" if found and found.hf_hub_id else "them"
            raise ModelError(
                f"cannot download the weights of {where} ({reason}); go online, or fetch {place} elsewhere "
                "and give its file with --weights (--weights none for an untrained network)"
            ) from error


_OURS = (
    *("num_classes", "in_chans", "img_size", "pretrained"),
    *("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"),
)
"""Arguments that no folder decides: sizes, and which files timm reads, some versions of it as any pickle."""


def _timm(where: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise needs("timm", "timm", where) from error
    return timm


def _folder(where: str) -> Path | None:
    path = Path(where.removeprefix("timm:"))
    return path if (path / "config.json").is_file() else None


def _fit(height: int, width: int, data: dict[str, Any]) -> Fit:
    """What timm's transform for evaluation comes to."""
    tall, wide = (math.floor(side / data["crop_pct"]) for side in (height, width))
    bicubic = data["interpolation"] == "bicubic"
    if data["crop_mode"] == "squash" or height != width:
        return Fit((tall, wide), height if height == width else None, bicubic)
    return Fit(tall, height, bicubic)
