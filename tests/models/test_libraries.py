"""Classifiers of timm and transformers, from folders and files: nothing is downloaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import advkit
from advkit.core.context import Context
from advkit.core.errors import ConfigError, ModelError
from advkit.data.load import load_data
from advkit.data.subjects import Subject
from advkit.models.card import Preprocessing
from advkit.models.door import Fit, named_door
from advkit.models.doors.hf import HuggingFace
from advkit.models.doors.timm import Timm
from advkit.models.foreign_settings import SubjectSettings

NAMES = ("cat", "dog", "eel")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs of other sizes than the networks take, in a folder for each class."""
    noise = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for place in range(3):
            pixels = noise.integers(0, 256, (50 + 7 * number, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{place}.png")
    return tmp_path / "photos"


def opened(where: str, photos: Path, **more: Any) -> Subject:
    return Subject.open(SubjectSettings(model=where, data=f"folder:{photos}", **more), Context())


@pytest.mark.parametrize("where", ["timm:resnet18", "hf:folder"])
def test_a_library_that_is_not_installed(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match="pip install") as caught:
        advkit.load_model(where)
    assert "\n" not in str(caught.value)


def test_timms_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=3, img_size=32).eval()
    timm.models.save_for_hf(network, "folder", model_args={"img_size": 32, "checkpoint_path": "any.pth"})
    about = json.loads(Path("folder/config.json").read_text(encoding="utf-8"))
    about["label_names"] = NAMES
    about["pretrained_cfg"] |= {"input_size": [3, 32, 32], "std": [0.5, 0.25, 0.5], "crop_pct": 0.8}
    Path("folder/config.json").write_text(json.dumps(about), encoding="utf-8")
    subject = opened("timm:./folder", photos)
    card = subject.model.card
    assert (card.shape, card.classes, card.labels) == ((3, 32, 32), 3, NAMES)
    assert (card.preprocessing.mean, card.preprocessing.std) == ((0.5, 0.5, 0.5), (0.5, 0.25, 0.5))
    assert "normalisation-assumed" not in {note.code for note in subject.model.notes}
    way = named_door("timm:./folder")
    assert way is not None and way.fit("timm:./folder") == Fit(40, 32, bicubic=True)
    fitted = load_data(f"folder:{photos}", resize=40, crop=32, bicubic=True)
    assert subject.images.fingerprint == fitted.fingerprint
    x, _ = subject.images.batch(torch.arange(4))
    data = timm.data.resolve_data_config(pretrained_cfg=about["pretrained_cfg"])
    image = Image.open(photos / "cat" / "0.png")
    expected = timm.data.create_transform(**data)(image)[None]
    own = (subject.images.batch(torch.tensor([0]))[0] - 0.5) / torch.tensor([0.5, 0.25, 0.5]).view(3, 1, 1)
    assert (own - expected).abs().mean() < 0.02  # torchvision rounds on its way
    std = torch.tensor(card.preprocessing.std).view(3, 1, 1)
    torch.testing.assert_close(subject.model(x), network((x - 0.5) / std))
    again = advkit.load_model(advkit.save_model(subject.model, tmp_path / "m.safetensors"))
    assert again.hash == subject.model.hash
    Path("folder/config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError):
        advkit.load_model("timm:./folder")


def test_timms_networks_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    for name in ("test_resnet", "test_vit"):
        torch.manual_seed(1)
        network = timm.create_model(name, num_classes=1000).eval()
        torch.save({"state_dict": network.state_dict()}, tmp_path / "m.pth")
        model = advkit.load_model(f"timm:{name}", weights=tmp_path / "m.pth")
        x = torch.rand(2, *model.card.shape)
        assert model.card.shape == (3, 160, 160)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in timm_normalisation(timm, name))
        torch.testing.assert_close(model(x), network((x - mean) / std))
        assert model.card.labels[0].startswith("tench")
        few = timm.create_model(name, num_classes=7, **({"img_size": 64} if name == "test_vit" else {}))
        torch.save(few.state_dict(), tmp_path / "few.pth")
        own: Any = {"shape": (3, 64, 64), "mean": (0.25,)}
        model = advkit.load_model(tmp_path / "few.pth", arch=f"timm:{name}", **own)
        x = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(model(x), few.eval()(x - 0.25))
        assert (model.card.classes, model.card.labels) == (7, ())
    bare = advkit.load_model("timm:test_vit", weights="none", classes=5, shape=(1, 32, 32))
    assert bare(torch.rand(2, 1, 32, 32)).shape == (2, 5)
    said: list[tuple[str, dict[str, Any]]] = [
        ("timm:test_resnex", {}),
        ("timm:test_vit", {"weights": "none"}),
    ]
    for where, more in said:
        with pytest.raises(ConfigError):
            advkit.load_model(where, **more)

    def offline(*_: Any, **__: Any) -> Any:
        raise OSError("no route to host\nat all")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", offline)
    with pytest.raises(ModelError, match=r"no route to host.*--weights") as caught:
        advkit.load_model("timm:test_vit")
    assert "\n" not in str(caught.value)


def timm_normalisation(timm: Any, name: str) -> tuple[Any, Any]:
    found = timm.get_pretrained_cfg(name)
    return found.mean, found.std


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize(("classes", "labels"), [(1000, 1000), (3, 0), (2, 2)])
@pytest.mark.parametrize(
    ("size", "more", "fit"),
    [
        ((3, 32, 32), {}, Fit(40, 32, bicubic=False)),
        ((1, 32, 32), {"interpolation": "bicubic"}, Fit(40, 32, bicubic=True)),
        ((3, 32, 32), {"crop_mode": "squash"}, Fit((40, 40), 32, bicubic=False)),
        ((3, 32, 48), {}, Fit((40, 60), None, bicubic=False)),
    ],
)
def test_what_timm_says_of_a_classifier(
    in_folder: bool,
    classes: int,
    labels: int,
    size: Any,
    more: Any,
    fit: Fit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = [f"own {k}" for k in range(labels)] if labels == 2 else None
    said = {"num_classes": classes, "label_names": own, "fixed_input_size": size[0] == 1}
    usual = {
        "mean": [0.5],
        "std": [0.25],
        "interpolation": "bilinear",
        "crop_pct": 0.8,
        "crop_mode": "center",
    }
    data = SimpleNamespace(
        resolve_data_config=lambda pretrained_cfg, verbose: {**usual, **more, "input_size": size},
        ImageNetInfo=lambda name: SimpleNamespace(
            label_descriptions=lambda: [f"{name} {k}" for k in range(1000)]
        ),
    )
    library = SimpleNamespace(
        data=data,
        is_model=lambda name: name == "net",
        get_pretrained_cfg=lambda name: SimpleNamespace(to_dict=lambda: said),
    )
    monkeypatch.setitem(sys.modules, "timm", library)
    about = {"architecture": "net", "pretrained_cfg": said, "label_names": own, "num_classes": classes}
    about |= {"model_args": {"depth": [1, 2], "img_size": 7, "num_classes": 9}}
    Path("net").mkdir() if in_folder else None
    Path("net/config.json").write_text(json.dumps(about), encoding="utf-8") if in_folder else None
    found = Timm().pretrained("timm:./net" if in_folder else "timm:net")
    assert (found.architecture, found.shape, found.classes) == ("timm:net", size, classes)
    assert found.labels == tuple(own or [f"imagenet-1k {k}" for k in range(labels)])
    assert found.preprocessing == Preprocessing(mean=(0.5,), std=(0.25,))
    assert (found.fit, found.size_bound) == (fit, size[0] == 1)
    assert found.config == ({"depth": (1, 2)} if in_folder else {})


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (8, 16)])
@pytest.mark.parametrize("classes", [2, 3])
def test_what_the_libraries_build_a_network_from(
    classes: int, size: tuple[int, int], sized: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, Any] = {}
    state = torch.nn.Linear(2, 2).state_dict()

    def build(name: str, **values: Any) -> Any:
        if name == "lost" or (not sized and "img_size" in values):
            raise TypeError("no\nway" if sized else "")
        said.update(values, name=name)
        return SimpleNamespace(state_dict=lambda: state)

    def found(name: str) -> Any:
        return SimpleNamespace(hf_hub_id="place") if sized else None

    quiet = SimpleNamespace(logging=SimpleNamespace(disable_progress_bar=lambda: None))
    kinds = {"AutoConfig": SimpleNamespace(for_model=build)}
    kinds["AutoModelForImageClassification"] = SimpleNamespace(from_config=without_code(lambda own: own))
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(utils=quiet, **kinds))
    library = SimpleNamespace(create_model=build, get_pretrained_cfg=found)
    monkeypatch.setitem(sys.modules, "timm", library)

    config = {"model_type": "vit", "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}, "depth": 3}
    HuggingFace().network("hf:vit", (3, *size), classes, config | ({"image_size": 4} if sized else {}))
    square = size[0] == size[1]
    right = {"name": "vit", "depth": 3} | ({"image_size": 8 if square else [8, 16]} if sized else {})
    labels = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    assert said == right | (labels if classes == 2 else {"num_labels": classes})

    said.clear()
    Timm().network("timm:net", (3, *size), classes, {"depth": 3})
    right = {"name": "net", "depth": 3, "pretrained": False, "num_classes": classes, "in_chans": 3}
    assert said == right | ({"img_size": size} if sized else {})
    with pytest.raises(ConfigError, match=rf"\b8x{size[1]}\b.*\({'no' if sized else 'TypeError'}\)"):
        Timm().network("timm:lost", (3, *size), classes, {})

    said.clear()
    assert Timm().weights("timm:net") == state
    assert said == {"name": "net", "pretrained": True}
    with pytest.raises(
        ModelError, match=rf"\({'no' if sized else 'TypeError'}\).*{'/place' if sized else 'them'} "
    ):
        Timm().weights("timm:lost")
    said.clear()
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    torch.save(state, tmp_path / "pytorch_model.bin")
    own = Timm().weights(f"timm:{tmp_path}")
    assert not said and all(torch.equal(own[name], state[name]) for name in state)


PROCESSORS: dict[str, tuple[dict[str, Any], Fit | None, tuple[float, float]]] = {
    "resized": ({}, Fit((32, 32), None, bicubic=False), (0.0, 1.0)),
    "bicubic": ({"resample": 3}, Fit((32, 32), None, bicubic=True), (0.0, 1.0)),
    "bytes": ({"do_rescale": False}, Fit((32, 32), None, bicubic=False), (0.0, 255.0)),
    "wider": ({"rescale_factor": 0.007843137}, Fit((32, 32), None, bicubic=False), (0.0, 2.0)),
    "left alone": ({"do_resize": False, "do_normalize": False}, None, (0.0, 1.0)),
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_a_folder_of_transformers(
    kind: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    more, fit, pixels = PROCESSORS[kind]
    monkeypatch.chdir(tmp_path)
    network = tiny(transformers)
    network.save_pretrained("folder")
    mean, std = [0.5, 0.25, 0.5], [0.5, 0.5, 0.25]
    size = {"height": 32, "width": 32}
    processor = transformers.ViTImageProcessor(size=size, image_mean=mean, image_std=std, **more)
    processor.save_pretrained("folder")
    way = named_door("hf:./folder")
    assert way is not None and way.fit("hf:./folder") == fit
    subject = opened("hf:./folder", photos, **({"resize": (32, 32)} if fit is None else {}))
    card = subject.model.card
    assert (card.shape, card.classes, card.labels) == ((3, 32, 32), 3, NAMES)
    assert card.preprocessing.pixel_range == pixels
    x, _ = subject.images.batch(torch.arange(4))
    same = {"do_resize": False, "do_rescale": True}
    prepared = transformers.ViTImageProcessor(**{**processor.to_dict(), **same})
    factor = pixels[1] / 255
    batch = (x * 255).round().to(torch.uint8)
    own = prepared(list(batch), return_tensors="pt", rescale_factor=factor)["pixel_values"]
    torch.testing.assert_close(subject.model(x), network(own).logits, rtol=1e-4, atol=1e-5)
    assert "output-unwrapped" in {note.code for note in subject.facts.notes}
    again = advkit.load_model(advkit.save_model(subject.model, tmp_path / "m.pt"))
    assert again.hash == subject.model.hash
    torch.testing.assert_close(again(x), subject.model(x))


def without_code(made: Callable[..., Any]) -> Callable[..., Any]:
    """A maker of transformers, which may run code beside the weights, or ask, unless it is forbidden."""

    def make(*given: Any, trust_remote_code: bool | None = None, **more: Any) -> Any:
        assert trust_remote_code is False
        return made(*given, **more)

    return make


def tiny(transformers: Any, **more: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: n for n, name in enumerate(NAMES)}}
    config = transformers.ViTConfig(image_size=32, patch_size=8, **sizes, **labels, **more)
    return transformers.AutoModelForImageClassification.from_config(config).eval()


@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_a_network_of_transformers_is_built_for_the_size_of_the_images(size: tuple[int, int]) -> None:
    config = tiny(pytest.importorskip("transformers")).config.to_dict()
    network = HuggingFace().network("hf:vit", (3, *size), 3, config)
    assert network(torch.rand(2, 3, *size)).logits.shape == (2, 3)


def test_transformers_that_crop_and_other_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    config.num_labels = 4
    network = transformers.AutoModelForImageClassification.from_config(config).eval()
    network.save_pretrained("folder")
    with pytest.raises(ConfigError):  # which says no size
        advkit.load_model("hf:folder", shape=None)
    for portion, side, fit in (
        (0.5, 64, Fit(128, 64, bicubic=True)),
        (0.5, 384, Fit((384, 384), None, bicubic=True)),
    ):
        processor = transformers.ConvNextImageProcessor(size={"shortest_edge": side}, crop_pct=portion)
        processor.save_pretrained("folder")
        way = named_door("hf:folder")
        assert way is not None and way.fit("hf:folder") == fit
    processor = transformers.ViTImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, do_center_crop=True, resample=2
    )
    processor.save_pretrained("folder")
    assert way.fit("hf:folder") == Fit(40, 32, bicubic=False)
    model = advkit.load_model("hf:folder", shape=(3, 48, 48))
    assert (model.card.shape, model.card.classes, model.card.labels) == ((3, 48, 48), 4, ())
    state = {f"module.{name}": tensor + 1e-3 for name, tensor in network.state_dict().items()}
    torch.save(state, "tuned.pt")
    tuned = advkit.load_model("hf:folder", weights="tuned.pt")
    x = torch.rand(2, 3, 32, 32)
    assert not torch.allclose(tuned(x), model(x))
    bare = advkit.load_model("hf:folder", weights="none", classes=7)
    assert bare(x).shape == (2, 7)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for where in ("hf:./nowhere", "hf:."):
        with pytest.raises(ModelError) as caught:
            advkit.load_model(where)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "said"), [("no route to host\nat all", "no route to host"), ("gone", "gone"), ("", "OSError")]
)
def test_why_transformers_loads_nothing_is_said_in_one_line(
    fault: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: type[Exception] = OSError

    def fails(*_: Any, **__: Any) -> Any:
        raise kind(fault)

    quiet = SimpleNamespace(logging=SimpleNamespace(disable_progress_bar=lambda: None))
    fake = SimpleNamespace(from_pretrained=without_code(fails), for_model=fails)
    kinds = dict.fromkeys(("AutoConfig", "AutoImageProcessor"), fake)
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(utils=quiet, **kinds))
    with pytest.raises(ModelError) as caught:
        HuggingFace().pretrained("hf:name")
    assert f"({said})" in str(caught.value) and "\n" not in str(caught.value)
    kind = ValueError
    with pytest.raises(ConfigError) as refused:
        HuggingFace().network("hf:name", (3, 32, 32), 2, {})
    assert f"({said.replace('OSError', 'ValueError')})" in str(refused.value)
    kinds["AutoConfig"] = SimpleNamespace(
        from_pretrained=lambda *_, **__: SimpleNamespace(num_labels=0, id2label={})
    )
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(utils=quiet, **kinds))
    (tmp_path / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError):  # it is there, so nothing is assumed in its place
        HuggingFace().pretrained(f"hf:{tmp_path}")


RESIZED, CROPPED = {"do_resize": True}, {"do_center_crop": True}
SAID: list[tuple[dict[str, Any], tuple[int, int], Fit | None, tuple[float, float]]] = [
    (
        {"crop_size": {"height": 28, "width": 28}, "size": {"shortest_edge": 32}, "resample": 3}
        | {**RESIZED, **CROPPED},
        (28, 28),
        Fit(32, 28, bicubic=True),
        (0, 1),
    ),
    ({"size": 32, "do_rescale": False, **RESIZED}, (32, 32), Fit((32, 32), None, bicubic=False), (0, 255)),
    (
        {"size": {"height": 20, "width": 30}, "rescale_factor": 1 / 127.5, "rescale_offset": True}
        | {**RESIZED, **CROPPED},
        (20, 30),
        Fit((20, 30), None, bicubic=False),
        (-1, 1),
    ),
    ({"size": {"height": 20}, "crop_size": [24, 20], **RESIZED}, (24, 20), None, (0, 1)),
    (
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875, **RESIZED},
        (224, 224),
        Fit(256, 224, bicubic=False),
        (0, 1),
    ),
    (
        {"size": {"shortest_edge": 384}, "crop_pct": 0.875, **RESIZED},
        (384, 384),
        Fit((384, 384), None, bicubic=False),
        (0, 1),
    ),
    ({"size": {"shortest_edge": 40}, "rescale_factor": 0.007843137, **RESIZED}, (40, 40), None, (0, 2)),
    ({"size": 40, "crop_size": 28, **CROPPED}, (28, 28), Fit(None, 28, bicubic=False), (0, 1)),
    ({"size": 40}, (40, 40), None, (0, 1)),
    ({}, (24, 24), None, (0, 1)),
]


@pytest.mark.parametrize(("more", "size", "fit", "pixels"), SAID)
@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1"), ("LABEL_0", "cat")])
def test_what_a_processor_of_transformers_says(
    more: dict[str, Any], size: Any, fit: Any, pixels: Any, labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimpleNamespace(
        id2label=dict(enumerate(labels)),
        num_labels=2,
        image_size=24,
        model_type="kind",
        to_diff_dict=lambda: {"depth": 3, "dtype": "float32"},
    )
    usual = {"rescale_factor": 1 / 255, "image_mean": 0.5, "image_std": [0.2, 0.3, 0.4]}
    parts = {"AutoConfig": config, "AutoImageProcessor": SimpleNamespace(**usual | more)}
    library = {
        name: SimpleNamespace(from_pretrained=without_code(lambda *_, part=part, **__: part))
        for name, part in parts.items()
    }
    quiet = SimpleNamespace(logging=SimpleNamespace(disable_progress_bar=lambda: None))
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(utils=quiet, **library))
    found = HuggingFace().pretrained("hf:name")
    assert found.preprocessing is not None
    assert (found.shape, found.classes, found.config) == ((3, *size), 2, {"depth": 3})
    assert (found.fit, found.preprocessing.pixel_range) == (fit, pixels)
    assert (found.preprocessing.mean, found.preprocessing.std) == ((), ())
    assert found.labels == (() if labels[1] == "LABEL_1" else labels)
    parts["AutoImageProcessor"].do_normalize = True
    said = HuggingFace().pretrained("hf:name").preprocessing
    assert said is not None and (said.mean, said.std) == ((0.5,), (0.2, 0.3, 0.4))
