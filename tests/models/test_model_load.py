from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn

from advkit import load_model, save_model
from advkit.core.errors import ConfigError, ModelError
from advkit.models.checkpoint import load_weights
from advkit.models.doors.torchvision import Torchvision
from advkit.models.inspect import inspect_classifier
from advkit.models.load import as_classifier, wrap
from advkit.models.network import build
from advkit.models.store import Store


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_a_module_in_hand_is_wrapped() -> None:
    network = linear()
    network[1].bias.requires_grad_(False)
    model = load_model(network, shape=(1, 8, 8), mean=[0.25], std=[0.5], pixel_range=(0, 2), classes=10)
    assert model.network is network
    assert not model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False]
    card = model.card
    assert (card.role, card.shape, card.classes, card.notes) == ("classifier", (1, 8, 8), 10, "")
    assert card.architecture == "torch.nn.modules.container:Sequential"
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model(x), network((2 * x - 0.25) / 0.5))
    elsewhere = load_model(nn.Conv2d(1, 1, 1, device="meta"), shape=(1, 8, 8), mean=[0.25])
    assert elsewhere.scale is not None
    assert elsewhere.scale.device.type == "meta"  # where its weights are
    bare = load_model(nn.Identity(), shape=(1, 8, 8), role="generator", outputs="probabilities")
    assert (bare.card.role, bare.probabilities) == ("generator", True)


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("mean", [(), (0.25,)])
def test_that_there_is_no_normalisation_is_assumed_of_foreign_networks_alone(
    mean: Any, registered: bool
) -> None:
    network = build("mlp", shape=(1, 8, 8), classes=10) if registered else linear()
    model = load_model(network, shape=(1, 8, 8), mean=mean)
    assert [note.code for note in model.notes] == ["normalisation-assumed"] * (not registered and not mean)
    assert model.card.preprocessing.mean == mean


def test_a_model_is_returned_itself_and_wrapping_leaves_the_mode(make: Any) -> None:
    model, network = make().train(), linear().train()
    assert wrap(model) is as_classifier(model) is model
    assert model.training
    assert load_model(model) is model
    assert not model.training
    with pytest.raises(ConfigError):
        load_model(model, mean=(0.5,))
    assert wrap(network, shape=(1, 8, 8)).training and as_classifier(network, (1, 8, 8)).training
    assert not wrap(network.eval(), shape=(1, 8, 8)).training


def test_what_a_module_does_not_say_must_be_said() -> None:
    assumed = load_model(linear(), shape=(1, 8, 8))
    (note,) = assumed.notes
    assert note.code == "normalisation-assumed"
    assert note.text in repr(assumed) and note.text in assumed.card.notes
    for mean, std in ((0.5, 0.5), (1.0, 1.0), (0.0, 1.0)):
        assert "assumed" not in load_model(linear(), shape=(1, 8, 8), mean=[mean], std=[std]).card.notes
    shape: Any = {"shape": (1, 8, 8)}
    wrong: Any = [
        {"mean": (0.1, 0.2)},
        {"mean": (125.3,), "std": (63.0,)},
        {"std": (63.0,)},
        {"std": (1.01,)},
        {"mean": (1.01,)},
        {"mean": (-0.01,)},
        {"outputs": "softmax"},
        {"arch": "lenet"},
        {"weights": "none"},
        {"weights_key": "net"},
    ]
    for more in [{}, *(shape | one for one in wrong)]:
        with pytest.raises(ConfigError):
            load_model(linear(), **more)


def test_a_registered_network_in_hand_can_be_saved_and_loaded(tmp_path: Path) -> None:
    network = build("mlp", shape=(1, 8, 8), classes=5, config={"hidden": (12,)})
    model = load_model(network)
    assert (model.card.architecture, model.card.shape, model.card.classes) == ("mlp", (1, 8, 8), 5)
    assert load_model(save_model(model, tmp_path / "m.pt")).hash == model.hash


def test_files_and_their_cards(make: Any, tmp_path: Path) -> None:
    model = make()
    path = save_model(model, tmp_path / "m.safetensors")
    for where in (str(path), path):
        found = load_model(where, shape=(3, 32, 32), classes=3, arch="mlp", device="cpu")
        assert found.hash == model.hash
        assert not found.training
    wrong: Any = [
        {"mean": (0.5,)},
        {"arch": "lenet"},
        {"weights": path},
        {"device": "gpu"},
        {"device": "cuda:77"},
    ]
    for more in wrong:
        with pytest.raises(ConfigError):
            load_model(path, **more)
    path = save_model(make("conv-gan-generator"), tmp_path / "g.pt")
    assert load_model(path, role="generator").card.role == "generator"
    with pytest.raises(ModelError):
        load_model(path, role="discriminator")


def test_run_folders(make: Any, tmp_path: Path) -> None:
    """Any files in one: the model of the role that is called ``model``, else ``ema``, else the only one. All
    are listed where that is open, and one that cannot be read might be the one that is meant."""
    roles = {"model": "classifier", "ema": "generator", "other": "generator", "critic": "discriminator"}
    kinds = {role: f"conv-gan-{role}" for role in roles.values()} | {"classifier": "mlp"}
    made = {name: make(kinds[role], seed) for seed, (name, role) in enumerate(roles.items())}
    kept = {name: save_model(model, tmp_path / f"{name}.safetensors") for name, model in made.items()}
    torch.save(make().network.state_dict(), tmp_path / "bare.pt")
    (tmp_path / "odd.pt").write_bytes(b"garbage")
    kept |= {name: tmp_path / f"{name}.pt" for name in ("bare", "odd")}
    for number, role in itertools.product(range(64), (None, "generator", "classifier")):
        names = [name for bit, name in enumerate(kept) if number >> bit & 1]
        run = tmp_path / f"{number}-{role}"
        run.mkdir()
        for name in names:
            (run / kept[name].name).symlink_to(kept[name])
        torch.save({"step": 1}, run / "state.pt")
        (run / "model.json").touch()
        fitting = [name for name in names if name in roles and role in (None, roles[name])]
        best = [name for name in ("model", "ema") if name in fitting] or fitting
        if names == ["bare"] and role != "generator":
            assert load_model(run, role=role).card.architecture == "mlp"
        elif best[:1] == ["model"] or ("odd" not in names and (len(fitting) == 1 or "ema" in fitting)):
            assert load_model(run, role=role).hash == made[best[0]].hash
        else:
            several = bool(fitting or {*names} & {"bare", "odd"}) and len(names) > 1
            with pytest.raises(ConfigError if several else ModelError) as fault:
                load_model(str(run), role=role)
            assert not several or all(kept[name].name in str(fault.value) for name in names)


def test_a_name_in_the_store_comes_before_a_folder_and_after_a_file(
    store: Store, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    digest = store.add(make(seed=0), "digits")
    (tmp_path / "digits").mkdir()
    for name in ("digits", digest[:10]):
        assert load_model(name, store=store).hash == digest
    (tmp_path / "digits").rmdir()
    for name in ("digits", "os:getcwd"):  # a file of a strange name is a file
        save_model(make(seed=1), tmp_path / "m.pt").rename(tmp_path / name)
        assert load_model(name, store=store).hash == make(seed=1).hash


def test_what_is_nowhere(make: Any, tmp_path: Path) -> None:
    save_model(make(), tmp_path / "clf.pt")
    Store().add(make(), "digits")
    known: Any = {str(tmp_path / "clv.pt"): "clf.pt", tmp_path / "clv.pt": "clf.pt", "digist": "digits"}
    known |= {
        where: str(where) for where in ("clv.pth", Path("clv"), "nothing", "lenet", "not_there.networks:make")
    }
    for where, near in known.items():
        with pytest.raises(ModelError, match=near.partition(":")[0]) as fault:
            load_model(where)
        assert ("--arch lenet" in str(fault.value)) == (where == "lenet")
    with pytest.raises(ConfigError):
        load_model("not_there.networks:make", arch="lenet")


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 10)

    def forward(self, x):
        return self.dense(x.flatten(1))

def broken():
    raise RuntimeError("no such luck")

def text():
    return "a model"

number = 3
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "their_own_networks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.chdir(tmp_path / "modules")
    return "their_own_networks"


def test_a_users_function(user_module: str, make: Any, tmp_path: Path) -> None:
    where = f"{user_module}:Net"
    before = torch.get_rng_state()
    model = load_model(where, shape=(1, 8, 8), classes=10)
    assert torch.equal(before, torch.get_rng_state())
    assert model.card.architecture == where
    weights = tmp_path / "weights.pth"
    state = {name: torch.full_like(tensor, 0.5) for name, tensor in model.network.state_dict().items()}
    torch.save(state, weights)
    x = torch.rand(2, 1, 8, 8)
    filled = load_model(where, weights=weights, shape=(1, 8, 8))
    torch.testing.assert_close(filled(x), x.flatten(1).sum(1, keepdim=True).expand(2, 10) * 0.5 + 0.5)
    assert torch.equal(load_model(weights, arch=where, shape=(1, 8, 8))(x), filled(x))
    torch.save(make("lenet").network.state_dict(), weights)
    with pytest.raises(ModelError):
        load_model(where, weights=weights, shape=(1, 8, 8))


def test_a_file_alone_does_not_run_a_users_function(user_module: str, store: Store, tmp_path: Path) -> None:
    where = f"{user_module}:Net"
    model = load_model(where, shape=(1, 8, 8), classes=10)
    path = save_model(model, tmp_path / "m.safetensors")
    store.add(model, "theirs")
    for bare in (path, "theirs"):
        with pytest.raises(ModelError, match=f"--arch {where}"):
            load_model(bare, store=store)
        assert load_model(bare, arch=where, store=store).hash == model.hash
    assert load_model(where, weights=path).hash == model.hash


@pytest.mark.parametrize("name", ["Nett", "broken", "text", "number"])
def test_functions_that_make_no_model(name: str, user_module: str) -> None:
    with pytest.raises(ModelError, match=name):
        load_model(f"{user_module}:{name}", shape=(1, 8, 8))


def test_an_untrained_torchvision_network_saved_and_loaded(tmp_path: Path) -> None:
    name = "torchvision:squeezenet1_1"
    before = torch.get_rng_state()
    model = load_model(name, weights="none", classes=7, shape=(3, 32, 32))
    assert torch.equal(before, torch.get_rng_state())
    assert (model.card.architecture, model.card.classes, model.card.shape) == (name, 7, (3, 32, 32))
    assert load_model(name, weights="none", classes=2).card.shape == (3, 224, 224)
    again = load_model(save_model(model, tmp_path / "m.pt"))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(x), model(x))
    # Of an auxiliary output nobody has use.
    torch.save({"aux1.fc.bias": torch.zeros(3), **model.network.state_dict()}, tmp_path / "bare.pt")
    for where, more in ((name, {"weights": tmp_path / "bare.pt"}), (tmp_path / "bare.pt", {"arch": name})):
        bare = load_model(where, shape=(3, 32, 32), **more)
        assert (bare.card.classes, bare.card.labels, bare.card.preprocessing.mean) == (7, (), ())
        assert "bare.pt; pixels in [0, 1] without normalisation were assumed" in bare.card.notes
        assert torch.equal(bare(x), model(x))
    model.network.classifier[1].bias.data[0] = torch.nan
    torch.save(model.network.state_dict(), tmp_path / "bare.pt")
    with pytest.raises(ModelError, match=r"bare\.pt.*classifier\.1\.bias"):
        load_model(name, weights=tmp_path / "bare.pt")


def test_torchvisions_own_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torchvision import models as zoo

    state = zoo.squeezenet1_1(weights=None).state_dict()
    asked: dict[str, Any] = {}

    def fetch(url: str, **options: Any) -> Any:
        asked.update(options, url=url)
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    card = load_model("torchvision:squeezenet1_1", classes=10).card
    assert (asked["weights_only"], asked["check_hash"], asked["progress"]) == (True, True, False)
    assert (card.shape, card.classes, len(card.labels)) == ((3, 224, 224), 1000, 1000)
    assert card.preprocessing.mean == (0.485, 0.456, 0.406)
    assert card.preprocessing.std == (0.229, 0.224, 0.225)
    assert "its own weights" in card.notes and "normalised" in card.notes and "trained on" not in card.notes
    said = load_model("torchvision:squeezenet1_1", mean=(0.5, 0.5, 0.5), shape=(3, 64, 64)).card
    assert said.preprocessing.mean == (0.5, 0.5, 0.5)
    assert "trained on images of 3x224x224" in said.notes and "normalised" not in said.notes


def test_a_file_says_its_normalisation_unless_its_weights_are_torchvisions_own(tmp_path: Path) -> None:
    from torchvision import models as zoo

    for classes, mean in ((10, (0.25,)), (1000, (0.485, 0.456, 0.406))):
        state = zoo.squeezenet1_1(weights=None, num_classes=classes).state_dict()
        state = {f"1.{name}": tensor for name, tensor in state.items()}
        torch.save(state | {"0.mean": torch.tensor([0.25]), "0.std": torch.ones(1)}, tmp_path / "m.pt")
        model = load_model("torchvision:squeezenet1_1", weights=tmp_path / "m.pt")
        assert (model.card.classes, model.card.preprocessing.mean) == (classes, mean)
        assert [note.code for note in model.notes].count("normalisation-read") == 1


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "googlenet", "inception_v3", "vit_h_14", "efficientnet_b4"]
)
def test_what_torchvision_says_of_its_own_weights(name: str) -> None:
    from torchvision import models as zoo

    weights = zoo.get_model_weights(name).DEFAULT
    transforms, found = weights.transforms(), Torchvision().pretrained(f"torchvision:{name}")
    # The two prepare their pixels themselves unless they are told not to, which comes to this.
    hidden = (0.5,) * 3 if name in ("googlenet", "inception_v3") else None
    assert found.preprocessing.mean == (hidden or tuple(transforms.mean))
    assert found.preprocessing.std == (hidden or tuple(transforms.std))
    assert (found.shape, found.labels) == ((3, *transforms.crop_size * 2), tuple(weights.meta["categories"]))
    assert found.size_bound == (name == "vit_h_14")


def test_torchvisions_networks_are_built_plainly_and_to_size() -> None:
    for name in ("googlenet", "inception_v3"):
        with torch.device("meta"):
            network = Torchvision().network(f"torchvision:{name}", (3, 96, 96), 2, {})
        assert not network.aux_logits
        assert not network.transform_input
    torch.manual_seed(0)
    network = Torchvision().network("torchvision:googlenet", (3, 96, 96), 2, {})
    assert network.conv1.conv.weight.std().item() == pytest.approx(0.01, rel=0.1)
    with torch.device("meta"):
        network = Torchvision().network("torchvision:vit_b_32", (3, 64, 64), 2, {})
    assert network.encoder.pos_embedding.shape == (1, 2 * 2 + 1, 768)
    with pytest.raises(ConfigError, match="90x64"):
        Torchvision().network("torchvision:maxvit_t", (3, 90, 64), 2, {})


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    torch.save({"features.weight": torch.zeros(2, 3)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"other\.pt"):
        load_model("torchvision:squeezenet1_1", weights=tmp_path / "other.pt")


def test_torchvision_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ModelError, match=r"no route to host.*--weights"):
        load_model("torchvision:resnet18")


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("resnet", {}, "'resnet"),
        ("resnet18", {}, "--classes"),
        ("resnet18", {"classes": 1}, "--classes"),
        ("maxvit_t", {"classes": 10, "shape": (3, 50, 50)}, "50x50"),
        ("resnet18", {"classes": 10, "shape": (1, 28, 28)}, r"\b3 channels\D*\b1\b"),
        ("vit_b_32", {"classes": 10, "shape": (3, 28, 28)}, "28x28"),
        ("vit_b_32", {"classes": 10, "shape": (3, 64, 96)}, "64x96"),
    ],
)
def test_torchvision_faults(name: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_model(f"torchvision:{name}", weights="none", **more)


def test_networks_of_one_mode_and_of_no_module() -> None:
    images, shape = torch.rand(4, 1, 8, 8), (1, 8, 8)
    network = linear().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        frozen = torch.jit.freeze(torch.jit.script(network))
    sizes = ({0: torch.export.Dim("n", min=2, max=64)},)
    exported = torch.export.export(network, (images,), dynamic_shapes=sizes).module()
    for module in (frozen, exported):
        model = as_classifier(module, shape)
        assert inspect_classifier(model, images, None).deterministic
        torch.testing.assert_close(model.train().eval()(images), network(images))
    with pytest.raises(ModelError, match="staticmethod"):
        as_classifier(network.forward, shape)  # type: ignore[arg-type]


class Remembering(nn.Linear):
    """A layer with a state that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"since": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


def test_state_that_is_no_tensor(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), Remembering(64, 10))
    model = load_model(network, shape=(1, 8, 8))
    assert len(model.hash) == 64
    with pytest.raises(ModelError, match="get_extra_state"):
        load_weights(network, linear().state_dict(), "here")
