"""gan-eval and gan-compare: what they leave, what they say, what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from advkit import rng
from advkit.config import StrictModel
from advkit.context import Context
from advkit.data.data import Data
from advkit.data.load import load_data
from advkit.errors import ConfigError, DataError, ModelError
from advkit.gan.evaluation import command, subject
from advkit.gan.evaluation.command import compare, evaluate
from advkit.gan.evaluation.plan import GanComparison, GanEvaluation
from advkit.gan.evaluation.reference import Reference, chosen
from advkit.gan.evaluation.result import GanEvaluationResult
from advkit.gan.evaluation.subject import open_subject
from advkit.gan.judge import judge
from advkit.gan.metric import METRICS
from advkit.gan.metrics import classification_accuracy
from advkit.gan.sample import sample
from advkit.models.card import DataFacts, ModelCard, Shape
from advkit.models.checkpoint import save_model
from advkit.models.model import Model
from advkit.models.network import Generator, Vae, build
from advkit.models.store import Store
from advkit.outcome import Outcome

FEW = ("fid", "modes")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification_accuracy, "UPDATES", 5)
    monkeypatch.setattr(command, "GRID", 3)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., str]:
    """Stores a small untrained generator under a name."""

    def of(name: str, seed: int = 0, shape: Shape = (1, 8, 8), data: str = "digits") -> str:
        with rng.scope("cpu", seed, "test"):
            network = build("mlp-gan-generator", shape=shape, config={"hidden": (8,)})
        facts = DataFacts(name=data, split="train", fingerprint="", n=1)
        training = {"step": 7, "batch_size": 8}
        card = ModelCard(
            role="generator",
            architecture="mlp-gan-generator",
            config={"hidden": (8,)},
            shape=shape,
            data=facts,
            training=training,
        )
        Store().add(Model(network, card), name)
        return name

    return of


def test_a_run_leaves_figures_with_floors_and_grids(make: Callable[..., str]) -> None:
    told = evaluate(GanEvaluation(model=make("toy"), n=40), Context(out=Path("run")))
    result = GanEvaluationResult.load("run")
    assert json.loads(Path("run/result.json").read_text()) == told.result
    assert result.judge == judge().hash and result.judge[:12] in " ".join(told.sentences)
    keys = {figure.key for entry in METRICS for figure in entry.facts["figures"]}
    (one,) = result.generators
    assert {figure.key for figure in result.figures} == keys == set(one.values) and not result.skipped
    assert (result.n, one.images_seen, one.training_seconds, one.classes) == (40, 56, None, None)
    assert one.parameters == 100 * 8 + 8 + 4 * 8 + 8 * 64 + 64
    assert sum(one.histogram) == pytest.approx(1) == pytest.approx(sum(result.real_histogram))
    floors = {figure.key: figure.floor for figure in result.figures}
    assert one.values["fid"] > 3 * floors["fid"] and one.values["coverage"] < floors["coverage"] / 2
    assert result.judge_accuracy is not None and result.judge_accuracy > 0.8
    zoom = 800 // (3 * 9 + 1)
    for picture, rows in zip(told.pictures, (3, 2, 3), strict=True):
        with Image.open(picture.path) as image:
            assert image.size == ((3 * 9 + 1) * zoom, (rows * 9 + 1) * zoom)
    assert {figure.name for figure in result.figures} == {row[0] for row in told.tables[0].rows}


def test_a_finished_run_tells_the_same_without_measuring(
    make: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GanEvaluation(model=make("toy"), n=40, metrics=FEW)
    first = evaluate(config, Context(out=Path("run")))
    monkeypatch.setattr(command, "measure", None)
    assert evaluate(config, Context(out=Path("run"))) == first
    make("toy", seed=1)
    with pytest.raises(ConfigError, match="did not begin with the same model"):
        evaluate(config, Context(out=Path("run")))


def test_the_same_again_and_another_seed(make: Callable[..., str]) -> None:
    def values(folder: str, seed: int) -> dict[str, float]:
        config = GanEvaluation(model=make("toy"), n=40, metrics=FEW, seed=seed)
        evaluate(config, Context(out=Path(folder)))
        (one,) = GanEvaluationResult.load(folder).generators
        return one.values

    assert values("a", 0) == values("b", 0) != values("c", 1)


def test_several_side_by_side_get_what_each_gets_alone(make: Callable[..., str]) -> None:
    names = (make("one"), make("two", seed=1))
    told = compare(GanComparison(model=names, n=40, metrics=FEW), Context(out=Path("both")))
    both = GanEvaluationResult.load("both")
    evaluate(GanEvaluation(model="two", n=40, metrics=FEW), Context(out=Path("alone")))
    alone = GanEvaluationResult.load("alone")
    assert both.generators[1] == alone.generators[0] and both.figures == alone.figures
    assert told.tables[0].columns == ("", "one", "two", "floor", "")
    files = ["one/grid.png", "one/nearest.png", "two/grid.png", "two/nearest.png", "real.png"]
    assert [str(picture.path.relative_to("both")) for picture in told.pictures] == files
    with pytest.raises(ConfigError, match="named twice"):
        compare(GanComparison(model=("one", "one")), Context())


def test_training_time_is_read_from_the_run(make: Callable[..., str]) -> None:
    Path("trained").mkdir()
    model = Store().get(make("toy"))
    save_model(model, "trained/ema.safetensors")
    Path("trained/result.json").write_text(
        json.dumps({"models": {"ema": {"hash": model.hash}}, "seconds": 90})
    )
    assert open_subject("trained", "cpu").seconds == 90
    assert open_subject("trained/ema.safetensors", "cpu").seconds == 90
    assert open_subject("toy", "cpu").seconds is None
    Path("trained/result.json").write_text(
        json.dumps({"models": {"ema": {"hash": "another"}}, "seconds": 90})
    )
    assert open_subject("trained", "cpu").seconds is None


class Plain(Generator):
    """Images whose brightness is their class."""

    def __init__(self, classes: int | None) -> None:
        super().__init__(StrictModel(), shape=(1, 8, 8), classes=classes)
        self.latent_dim = 2
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        shade = torch.zeros(len(z)) if labels is None else labels / 10
        return shade.view(-1, 1, 1, 1).expand(-1, 1, 8, 8) * self.weight


class Coder(Vae):
    """Everything becomes nothing."""

    def __init__(self) -> None:
        super().__init__(StrictModel(), shape=(1, 8, 8))
        self.decoder = Plain(None)
        self.encoder = nn.Linear(64, 2)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.encoder(x.flatten(1))
        return mean, mean


def given(monkeypatch: pytest.MonkeyPatch, network: nn.Module, **card: Any) -> None:
    facts = ModelCard(architecture="toy", shape=(1, 8, 8), **card)
    monkeypatch.setattr(subject, "load_model", lambda name, device: Model(network, facts))


def test_a_vae_is_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, Coder(), role="vae")
    opened = open_subject("vae", "cpu")
    drawn, labels = opened.draw(5, 0)
    assert drawn.shape == (5, 1, 8, 8) and labels is None and not drawn.any()
    assert opened.parameters == 1 and opened.card.role == "vae"


def test_a_conditional_one_is_asked_for_all_classes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, Plain(10), role="generator", classes=10)

    def conditional(
        model: Model, n: int, seed: int, *, labels: Tensor, progress: object
    ) -> tuple[Tensor, Tensor]:
        z = torch.zeros(n, 2)
        with torch.no_grad():
            return (model(z, labels) * 255).round().to(torch.uint8), z

    monkeypatch.setattr(subject, "sample", conditional)
    drawn, labels = open_subject("conditional", "cpu").draw(2000, 0)
    assert labels is not None and torch.bincount(labels).min() > 150
    assert torch.equal((drawn[:, 0, 0, 0] / 25.5).round().long(), labels)


def test_what_cannot_be_measured(make: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="wide draws 1x9x9 images and 'digits' has 1x8x8; name the data"):
        evaluate(GanEvaluation(model=make("wide", shape=(1, 9, 9))), Context())
    with pytest.raises(ConfigError, match="no GAN metric called 'fdi'"):
        evaluate(GanEvaluation(model=make("toy"), metrics=("fdi",)), Context())
    given(monkeypatch, nn.Linear(1, 1), role="classifier")
    with pytest.raises(ModelError, match="clf is a classifier, which draws no images"):
        open_subject("clf", "cpu")
    given(monkeypatch, Plain(None), role="generator")
    with pytest.raises(ConfigError, match="does not say what it learned; name it with --data"):
        evaluate(GanEvaluation(model="nameless"), Context())
    assert not Path("runs").exists()


def test_few_images_are_as_many_as_there_are() -> None:
    train, test = load_data("digits", "train"), load_data("digits")
    assert Reference(train, test, judge(), n=10_000).n == 359
    assert Reference(train.limit(100), test, judge(), n=10_000).n == 50
    with pytest.raises(ConfigError, match="give 10 test images and 20 training images at least"):
        Reference(train, test.limit(9), judge(), n=10_000)


def test_the_floors_images_are_in_neither_set() -> None:
    reference = Reference(load_data("digits", "train"), load_data("digits"), judge(), n=300)
    floor = reference.floor
    assert len(floor.generated) == 300 and len(floor.train) == 1438 - 300
    rows = torch.cat([floor.generated.images, floor.train]).flatten(1).tolist()
    assert sorted(rows) == sorted(reference.train.images[:].flatten(1).tolist())
    everything = reference.comparison(floor.generated)
    assert torch.equal(everything.train, reference.train.images[:]) and everything.real is floor.real


def test_images_that_are_no_digits_keep_their_features() -> None:
    pictures = load_data("digits", "train")
    names = tuple("abcdefghij")
    data = Data("letters", "train", pictures.images, pictures.labels, names, pictures.ids)
    reference = Reference(data, data, judge(), n=50)
    assert not reference.digits and reference.accuracy is None and reference.real.features.shape == (50, 64)


def test_digits_that_the_judge_cannot_read_are_none() -> None:
    data = load_data("digits", "train")
    noise = rng.integers(torch.arange(len(data)), (1, 8, 8), 256).to(torch.uint8)
    reference = Reference(replace(data, images=noise), replace(data, images=noise), judge(), n=50)
    assert not reference.digits and reference.accuracy is not None and reference.accuracy < 0.5


def test_stacked_digits_have_a_thousand_modes() -> None:
    digits = load_data("digits", "train").limit(120)
    modes = digits.labels.view(40, 3) @ torch.tensor([100, 10, 1])
    names = tuple(f"{mode:03d}" for mode in range(1000))
    data = Data("stacks", "train", digits.images[:].reshape(40, 3, 8, 8), modes, names, torch.arange(40))
    reference = Reference(data, data, judge(), n=20)
    found = METRICS.get("modes")(reference.floor)
    assert 15 <= found["modes"] <= 20 and found["mode_kl"] > 3
    assert reference.real.features.shape == (20, 192)


def test_a_dry_run_writes_nothing(make: Callable[..., str], tmp_path: Path) -> None:
    said: Outcome = evaluate(GanEvaluation(model=make("toy"), n=50), Context(dry_run=True))
    assert said.result == {"n": 50, "metrics": [entry.name for entry in chosen([])]}
    assert not Path("runs").exists()


def test_what_is_no_result_is_refused(make: Callable[..., str]) -> None:
    config = GanEvaluation(model=make("toy"), n=20, metrics=("modes",))
    values = evaluate(config, Context(out=Path("run"))).result
    file = Path("other.json")
    for changed, said in (({"version": 99}, "newer advkit"), ({"schema": "advkit/curve"}, "no result of")):
        file.write_text(json.dumps({**values, **changed}))
        with pytest.raises(DataError, match=said):
            GanEvaluationResult.load(file)
    with pytest.raises(DataError, match="there is no result"):
        GanEvaluationResult.load("nowhere.json")


def test_sampling_and_measuring_see_the_same_images(make: Callable[..., str]) -> None:
    opened = open_subject(make("toy"), "cpu")
    assert torch.equal(opened.draw(12, 3)[0], sample(opened.generator, 12, 3)[0])
