"""``hf:NAME`` and ``hf:FOLDER``: image classifiers of Hugging Face's transformers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import nn

from advkit.core.errors import ConfigError, ModelError
from advkit.models.card import Preprocessing, Shape
from advkit.models.checkpoint import State
from advkit.models.door import Fit, door
from advkit.models.zoo import Pretrained, Zoo, needs

_UNIMPORTANT = {"transformers_version", "_name_or_path", "architectures", "torch_dtype", "dtype"}
"""Keys of a configuration that do not determine the network."""
_PROCESSOR = "preprocessor_config.json"
_BICUBIC = 3  # of PIL


@door("hf", "hf:", summary="hf:NAME or hf:FOLDER, an image classifier of transformers")
class HuggingFace(Zoo):
    """Of a folder, the cache or the hub. Code that lies beside the weights is never run."""

    library = "transformers"

    def pretrained(self, where: str) -> Pretrained:
        """What the configurations of the network and of its image processor say."""
        name, config = _name(where), _loaded(where, "AutoConfig")
        try:
            processor = _loaded(where, "AutoImageProcessor")
        except ModelError:
            if (Path(name) / _PROCESSOR).is_file():
                raise
            processor = None
        labels = [str(config.id2label[number]) for number in range(config.num_labels)]
        named = not all(re.fullmatch(r"LABEL_\d+", label) for label in labels)
        size = _size(getattr(processor, "crop_size", None)) or _size(getattr(processor, "size", None))
        size = size or _size(getattr(config, "image_size", None))
        if size is None:
            raise ConfigError(f"{name} does not say what images it takes; give a folder with {_PROCESSOR}")
        channels = getattr(config, "num_channels", 3)
        kept = {key: value for key, value in config.to_diff_dict().items() if key not in _UNIMPORTANT}
        return Pretrained(
            f"hf:{config.model_type}",
            (channels, *size),
            config.num_labels,
            None if processor is None else _preprocessing(processor),
            tuple(labels) if named else (),
            kept,
            None if processor is None else _fit(processor, size),
            size_bound=hasattr(config, "image_size"),
        )

    def network(self, architecture: str, shape: Shape, classes: int, config: dict[str, Any]) -> nn.Module:
        """Built from its configuration."""
        transformers = _transformers(architecture)
        values = {key: value for key, value in config.items() if key != "model_type"}
        if classes != len(values.get("id2label", ())):
            values = {key: value for key, value in values.items() if key not in ("id2label", "label2id")}
            values["num_labels"] = classes
        else:
            values["id2label"] = {int(key): value for key, value in values["id2label"].items()}
        if "image_size" in values:
            _, height, width = shape
            values["image_size"] = height if height == width else [height, width]
        try:
            own = transformers.AutoConfig.for_model(architecture.removeprefix("hf:"), **values)
            kind = transformers.AutoModelForImageClassification
            network: nn.Module = kind.from_config(own, trust_remote_code=False)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"{architecture} is no image classifier of transformers ({reason})") from error
        return network

    def weights(self, where: str) -> State:
        """Of the folder, the cache or the hub."""
        return dict(_loaded(where, "AutoModelForImageClassification").state_dict())


def _transformers(where: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise needs("transformers", "hf", where) from error
    return transformers


def _name(where: str) -> str:
    return where.removeprefix("hf:")


def _loaded(where: str, kind: str) -> Any:
    """What a class of transformers makes of a folder or name."""
    transformers, name = _transformers(where), _name(where)
    local = Path(name).is_dir()
    transformers.utils.logging.disable_progress_bar()
    try:
        return getattr(transformers, kind).from_pretrained(
            name, trust_remote_code=False, local_files_only=local
        )
    except Exception as error:  # the hub's client may fail in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        way = "check the folder" if local else "check the name, go online, or name a folder: hf:./FOLDER"
        if "trust_remote_code" in str(error):
            way = "advkit never runs it: load it in a function of your own, and name package.module:function"
        raise ModelError(f"cannot load {where} ({reason}); {way}") from error


def _preprocessing(processor: Any) -> Preprocessing:
    """Its rescaling and normalisation, of pixels from 0 to 255."""
    highest = 255 * processor.rescale_factor if getattr(processor, "do_rescale", True) else 255.0
    highest = round(highest, 6)
    low = -1.0 if getattr(processor, "rescale_offset", False) else 0.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    if getattr(processor, "do_normalize", False):
        mean, std = (_values(getattr(processor, f"image_{name}")) for name in ("mean", "std"))
    return Preprocessing(pixel_range=(low, low + highest), mean=mean, std=std)


def _values(given: Any) -> tuple[float, ...]:
    return tuple(map(float, given)) if isinstance(given, list | tuple) else (float(given),)


def _size(given: Any) -> tuple[int, int] | None:
    """(height, width) of a size in any of the library's forms."""
    if given is None or isinstance(given, int):
        return None if given is None else (given, given)
    if isinstance(given, list | tuple):
        return int(given[0]), int(given[1])
    values = dict(given)
    side = values.get("shortest_edge")
    height, width = values.get("height") or side, values.get("width") or side
    return (int(height), int(width)) if height and width else None


def _fit(processor: Any, size: tuple[int, int]) -> Fit | None:
    """What its resizing and cropping come to."""
    bicubic = int(getattr(processor, "resample", None) or 2) == _BICUBIC
    wanted = getattr(processor, "size", None)
    square = size[0] == size[1]
    if not getattr(processor, "do_resize", False) or wanted is None:
        return Fit(None, size[0], bicubic) if getattr(processor, "do_center_crop", False) and square else None
    side = None if isinstance(wanted, int) else dict(wanted).get("shortest_edge")
    portion = getattr(processor, "crop_pct", None)
    if side and portion and square:  # as ConvNeXT
        whole = side < 384
        return Fit(int(side / portion), side, bicubic) if whole else Fit((side, side), None, bicubic)
    crops = bool(getattr(processor, "do_center_crop", False)) and square
    if side:
        return Fit(side, size[0] if crops else None, bicubic) if crops else None
    resized = _size(wanted)
    return None if resized is None else Fit(resized, size[0] if crops else None, bicubic)
