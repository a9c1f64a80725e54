"""Classes of the data are those of the model by their names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets, models, transforms

from advkit.core.context import Context
from advkit.core.errors import ConfigError, DataError, UserError
from advkit.data.classes import class_name, match_classes, read_classes, renumbered, widened
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.data.subjects import Subject, flags
from advkit.evaluation.settings import Evaluation
from advkit.models.card import DataFacts, ModelCard
from advkit.models.checkpoint import save_model
from advkit.models.model import Model
from advkit.models.network import build

MakeFolder = Callable[..., Path]


def data_of(*names: str) -> Data:
    n = len(names)
    about = {"name": "own", "split": "all", "class_names": names, "ids": torch.arange(n)}
    return Data(**about, images=torch.zeros(n, 1, 2, 2, dtype=torch.uint8), labels=torch.arange(n))


def test_classes_of_a_generator_in_the_numbers_of_the_data():
    data, asked = data_of("dog", "cat", "cow"), torch.tensor([1, 0, 1])
    for labels, wanted in ((("cat", "dog"), [0, 1, 0]), ((), [1, 0, 1]), (("dog", "cat"), [1, 0, 1])):
        found = renumbered(asked, labels, data)
        assert found is not None and found.tolist() == wanted
    assert renumbered(asked, ("cat", "newt"), data) is None
    assert renumbered(asked + 2, (), data) is None
    assert renumbered(asked, ("cat", "newt"), replace(data, classes_known=False)) is asked


def test_data_without_names_have_all_classes_of_the_model():
    data = replace(data_of("0", "1"), classes_known=False)
    assert widened(data, ("cat", "dog", "cow"), 3).class_names == ("cat", "dog", "cow")
    assert widened(data, (), 4).classes == 4
    for same, classes in ((data, 2), (data, None), (data_of("a", "b"), 3)):
        assert widened(same, (), classes) is same


def matched(names: str, labels: str, classes: int | None = None) -> tuple[list[int], list[str]]:
    data = match_classes(data_of(*names.split(";")), labels.split(";") if labels else (), classes)
    return data.labels.tolist(), [note.code for note in data.notes]


@pytest.mark.parametrize(
    ("names", "labels", "numbers", "noted"),
    [
        ("cat;dog", "cat;dog", [0, 1], []),
        ("cat;dog", "dog;cat", [1, 0], ["classes-by-name"]),
        ("Cat;hot_dog", "hot-dog;bird;CAT", [2, 0], ["classes-by-name"]),
        ("0-cat;1-dog", "cat;dog", [0, 1], []),
        ("tench", "goldfish;n01440764 tench, Tinca tinca", [1], ["classes-by-name"]),
        ("n01440764", "goldfish;n01440764 tench, Tinca tinca", [1], ["classes-by-name"]),
        ("tinca tinca", "goldfish;tench, Tinca tinca", [1], ["classes-by-name"]),
        ("0;1;10;2", "0;1;2;10", [0, 1, 3, 2], ["classes-by-name"]),
        ("cat;dog", "0;1", [0, 1], []),
        ("cat;dog", "", [0, 1], []),
        ("cat;dog", "Katze;Hund", [0, 1], ["class-names-differ"]),
        ("cat;auto", "cat;car", [0, 1], ["class-names-differ"]),
    ],
)
def test_names_decide(names: str, labels: str, numbers: list[int], noted: list[str]) -> None:
    assert matched(names, labels) == (numbers, noted)
    if labels and noted != ["class-names-differ"] and labels != "0;1":
        data = match_classes(data_of(*names.split(";")), labels.split(";"))
        assert match_classes(data, labels.split(";")) is data and list(data.class_names) == labels.split(";")


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("cat;dog", "cat;bird;fish"),
        ("cat;dog", "dog;bird"),
        ("cat;dog;emu", "cat;dog"),
        ("crane", "crane;crane;dog"),
        ("cat;CAT", "cat;dog;emu"),
    ],
)
def test_what_cannot_be_told_is_refused(names: str, labels: str) -> None:
    with pytest.raises(DataError):
        matched(names, labels)


def test_fewer_classes_than_a_model_without_names_are_refused() -> None:
    with pytest.raises(DataError):
        matched("cat;dog", "", 3)


def test_synsets_have_the_numbers_of_imagenet() -> None:
    assert matched("n01440764;n02102040;n15075141", "", 1000) == ([0, 217, 999], ["classes-by-name"])
    with pytest.raises(DataError):
        matched("n00000000", "", 1000)


def test_numbers_are_no_names() -> None:
    data = data_of("0", "1")
    numbered = Data(**{**vars(data), "classes_known": False})
    assert match_classes(numbered, ("cat", "dog", "emu")) is numbered


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("names.txt", "a\n\nb, c\n"),
        ("names.json", json.dumps(["a", "b, c"])),
        ("names.json", json.dumps({"1": ["b", "c"], "0": ["a"]})),
        ("names.json", json.dumps({"b, c": 1, "a": 0})),
    ],
)
def test_files_of_names(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    assert read_classes(tmp_path / file) == ("a", "b, c")


@pytest.mark.parametrize("content", ["", "{", "{}", "3", '{"0": "a", "2": "b"}'])
def test_faults_of_such_files(tmp_path: Path, content: str) -> None:
    (tmp_path / "names.json").write_text(content)
    for name in ("names.json", "nowhere.txt"):
        with pytest.raises(ConfigError):
            read_classes(tmp_path / name)


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., str]:
    """A file of a model of three classes of 5 x 6 pixels in colour."""

    def make(labels: tuple[str, ...] = (), learnt: DataFacts | None = None) -> str:
        shape = {"shape": (3, 5, 6), "classes": 3}
        card = ModelCard(role="classifier", architecture="mlp", **shape, labels=labels, data=learnt)
        save_model(Model(build("mlp", **shape), card), tmp_path / "m.pt", overwrite=True)
        return str(tmp_path / "m.pt")

    return make


def subject(**settings: object) -> Subject:
    return Subject.open(Evaluation(**settings), Context(device="cpu"))


def test_a_command_takes_a_subset_in_another_order(
    model: Callable[..., str], make_folder: MakeFolder, tmp_path: Path
) -> None:
    data = f"folder:{make_folder({'cat': 2, 'dog': 1})}"
    opened = subject(model=model(("dog", "emu", "cat")), data=data)
    assert opened.images.labels.tolist() == [2, 2, 0] and opened.images.classes == 3
    assert [note.code for note in opened.images.notes] == ["undivided", "classes-by-name", "dark"]
    assert opened.about()["data"].notes == opened.images.notes
    (tmp_path / "names.txt").write_text("emu\ncat\ndog\n")
    named = subject(model=model(), data=data, classes=str(tmp_path / "names.txt"))
    assert named.images.labels.tolist() == [1, 1, 2]
    with pytest.raises(DataError):
        subject(model=model(), data=data)


def test_a_number_of_classes_where_the_data_do_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One output is the logit of class 1 only if two classes are said; more outputs than labels are noted."""
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = [
        "from torch import nn",
        *(f"def made{k}(): return nn.Sequential(nn.Flatten(), nn.Linear(30, {k}))" for k in (1, 3)),
    ]
    (tmp_path / "their_networks.py").write_text("\n".join(lines))
    x, y = np.random.default_rng(0).random((18, 1, 5, 6)), np.arange(18) % 2
    np.savez(tmp_path / "two.npz", x=x, y=y)
    np.savez(tmp_path / "few.npz", x=x[:17], y=y[:17])
    np.savez(tmp_path / "named.npz", x=x, y=y, class_names=["even", "odd"])

    def opened(outputs: int, file: str = "two", classes: object = None) -> Subject:
        data = f"npz:{tmp_path / file}.npz"
        return subject(model=f"their_networks:made{outputs}", data=data, classes=classes)

    assert opened(1, "two", 2).facts.outputs == opened(1, "named").facts.outputs == 2
    for classes in (None, 3):
        assert "outputs-beyond-labels" in [note.code for note in opened(3, "two", classes).facts.notes]
    for one in (opened(1, "two", "2"), opened(3, "few")):
        assert "outputs-beyond-labels" not in [note.code for note in one.facts.notes]
    np.savez(tmp_path / "beyond.npz", x=x, y=y + 2)
    for outputs, file, classes in (
        (3, "beyond", None),
        (1, "two", None),
        (1, "two", 3),
        (1, "two", 1),
        (3, "two", 2),
        (3, "named", None),
    ):
        with pytest.raises(UserError):
            opened(outputs, file, classes)


def test_a_command_resizes_and_samples(model: Callable[..., str], make_folder: MakeFolder) -> None:
    classes = {"cat": 10, "dog": 10, "emu": 10}
    about = {"model": model(), "data": f"folder:{make_folder(classes, size=(9, 7))}", "resize": (5, 6)}
    sampled, first = subject(**about, n=6), subject(**about, n=6, first=True)
    assert sampled.images.shape == (3, 5, 6) and sampled.images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert first.images.labels.tolist() == [0] * 6
    assert sampled.inputs["images"] != first.inputs["images"] and sampled.available > len(sampled.images)
    assert Evaluation(model="m", resize=7).resize == (7,)
    assert "--resize=5,6" in flags(Evaluation(**about), about["data"])


def test_images_that_the_model_has_learnt_are_no_test(
    model: Callable[..., str], make_folder: MakeFolder, tmp_path: Path
) -> None:
    data = f"folder:{make_folder({'cat': 20, 'dog': 20, 'emu': 0})}"
    facts = load_data(data, "train").facts
    assert len(subject(model=model(), data=data).images) == 40
    held_out = load_data(data, "test").fingerprint
    learnt = model(learnt=facts)
    for given in ({"data": data}, {}, {"data": data, "split": "test"}):
        assert subject(model=learnt, **given).images.fingerprint == held_out
    python = Subject.of(learnt, data).images, Subject.of(learnt, load_data(data)).images
    assert [len(images) for images in python] == [load_data(data, "test").facts.n, 40]
    moved = make_folder({}, "pictures").rename(tmp_path / "moved")
    assert subject(model=learnt, data=f"folder:{moved}").images.fingerprint == held_out
    assert len(subject(model=learnt, data=f"folder:{moved}", split="all").images) == 40
    other = make_folder({"cat": 21, "dog": 20, "emu": 0}, "other")
    assert len(subject(model=learnt, data=f"folder:{other}").images) == 41


def test_torchvisions_weights_bring_their_own_transform(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = models.squeezenet1_1(weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: state)
    folder = make_folder({"n02102040": 1, "n15075141": 1}, size=(300, 260))
    Image.effect_noise((240, 280), 90).convert("RGB").save(folder / "n02102040" / "000.png")
    opened = subject(model="torchvision:squeezenet1_1", data=f"folder:{folder}")
    assert opened.images.labels.tolist() == [217, 999]
    own = models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    own.mean, own.std = (0,) * 3, (1,) * 3
    files = datasets.ImageFolder(str(folder), own)
    for image, (other, _) in zip(opened.images.batch(torch.arange(2))[0], files, strict=True):
        assert torch.allclose(image, other, atol=1e-6)
    assert "resized" in [note.code for note in opened.images.notes]
    assert subject(model="torchvision:squeezenet1_1", data=f"folder:{folder}", crop=64).images.shape == (
        3,
        64,
        64,
    )
    bicubic = load_data(f"folder:{folder}", resize=224, crop=224, bicubic=True)
    way = transforms.Resize(224, transforms.InterpolationMode.BICUBIC)
    steps = transforms.Compose([way, transforms.CenterCrop(224), transforms.PILToTensor()])
    expected = datasets.ImageFolder(str(folder), steps)
    assert all(torch.equal(image, expected[row][0]) for row, image in enumerate(bicubic.images[:]))


def test_a_class_without_a_name_is_its_number() -> None:
    assert [class_name(label, ("cat", "dog")) for label in range(4)] == ["cat", "dog", "2", "3"]
