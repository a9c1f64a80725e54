from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn

from advkit import load_model, save_model
from advkit.errors import ConfigError, ModelError
from advkit.models.load import wrap
from advkit.models.network import build
from advkit.models.store import Store


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_a_module_in_hand_is_wrapped() -> None:
    network = linear()
    network[1].bias.requires_grad_(False)
    model = load_model(network, shape=(1, 8, 8), mean=[0.25], std=[0.5], pixel_range=(0, 2))
    assert model.network is network
    assert not model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False]
    assert (model.card.role, model.card.shape) == ("classifier", (1, 8, 8))
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model(x), network((2 * x - 0.25) / 0.5))


def test_a_model_is_returned_itself(make: Any) -> None:
    model = make().train()
    assert wrap(model) is model
    assert model.training
    assert load_model(model) is model
    assert not model.training
    with pytest.raises(ConfigError, match="leave --pixel-range, --mean"):
        load_model(model, mean=(0.5,))


def test_wrapping_leaves_the_mode() -> None:
    network = linear().train()
    assert wrap(network, shape=(1, 8, 8)).training
    assert network.training
    assert not wrap(network.eval(), shape=(1, 8, 8)).training


def test_probabilities_become_logits() -> None:
    network = nn.Sequential(linear(), nn.Softmax(1))
    model = load_model(network, shape=(1, 8, 8), outputs="probabilities")
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model(x).softmax(1), network(x))


def test_what_a_module_does_not_say_must_be_said() -> None:
    with pytest.raises(ConfigError, match=r"give their shape .*--shape 1,28,28"):
        load_model(linear())
    assert "without normalisation were assumed" in load_model(linear(), shape=(1, 8, 8)).card.notes
    assert "assumed" not in load_model(linear(), shape=(1, 8, 8), mean=[0.5], std=[0.5]).card.notes
    with pytest.raises(ConfigError, match="one value for each of 1 channels"):
        load_model(linear(), shape=(1, 8, 8), mean=(0.1, 0.2))
    with pytest.raises(ConfigError, match="outputs"):
        load_model(linear(), shape=(1, 8, 8), outputs="softmax")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="leave arch and weights out"):
        load_model(linear(), shape=(1, 8, 8), arch="lenet")


def test_a_registered_network_in_hand_can_be_saved_and_loaded(tmp_path: Path) -> None:
    network = build("mlp", shape=(1, 8, 8), classes=5, config={"hidden": (12,)})
    model = load_model(network)
    assert (model.card.architecture, model.card.shape, model.card.classes) == ("mlp", (1, 8, 8), 5)
    assert load_model(save_model(model, tmp_path / "m.pt")).hash == model.hash


@pytest.mark.parametrize("where", [str, Path])
def test_files(where: type, make: Any, tmp_path: Path) -> None:
    model = make()
    path = save_model(model, tmp_path / "m.safetensors")
    found = load_model(where(path), shape=(3, 32, 32), classes=3, arch="mlp")
    assert found.hash == model.hash
    assert not found.training


def test_a_card_is_not_contradicted(make: Any, tmp_path: Path) -> None:
    path = save_model(make(), tmp_path / "m.pt")
    with pytest.raises(ConfigError, match="leave --pixel-range, --mean"):
        load_model(path, mean=(0.5,))
    with pytest.raises(ConfigError, match="'mlp', not 'lenet'; leave --arch out"):
        load_model(path, arch="lenet")
    with pytest.raises(ConfigError, match="leave --weights out"):
        load_model(path, weights=path)


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_devices_that_are_not_there(device: str, make: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device"):
        load_model(save_model(make(), tmp_path / "m.pt"), device=device)


def test_roles(make: Any, tmp_path: Path) -> None:
    path = save_model(make("conv-gan-generator"), tmp_path / "g.pt")
    assert load_model(path, role="generator").card.role == "generator"
    with pytest.raises(ModelError, match="is a generator, but a discriminator is wanted"):
        load_model(path, role="discriminator")


def test_run_folders(make: Any, tmp_path: Path) -> None:
    run = tmp_path / "00001-gan"
    run.mkdir()
    torch.save({"step": 1}, run / "state.pt")
    with pytest.raises(ModelError, match="holds no model"):
        load_model(run)
    critic = make("conv-gan-discriminator")
    save_model(critic, run / "discriminator.safetensors")
    assert load_model(run).hash == critic.hash
    generator, ema = make("conv-gan-generator", seed=0), make("conv-gan-generator", seed=1)
    save_model(generator, run / "generator.safetensors")
    with pytest.raises(ConfigError, match=r"several models: .*generator.safetensors \(generator\)"):
        load_model(str(run))
    assert load_model(run, role="generator").hash == generator.hash
    save_model(ema, run / "ema.safetensors")
    assert load_model(run, role="generator").hash == ema.hash
    assert load_model(run, role="discriminator").hash == critic.hash
    with pytest.raises(ModelError, match="holds no classifier"):
        load_model(run, role="classifier")
    clf = make()
    save_model(clf, run / "model.safetensors")
    assert load_model(run).hash == clf.hash


def test_the_store(store: Store, make: Any) -> None:
    digest = store.add(make(), "digits-clf.v2")
    assert load_model("digits-clf.v2", store=store).hash == digest
    assert load_model(digest[:10], store=store).hash == digest
    with pytest.raises(ModelError, match=r"no model 'digits-cfl.v2' \(did you mean 'digits-clf.v2'\?\)"):
        load_model("digits-cfl.v2", store=store)


def test_a_name_in_the_store_comes_before_a_folder_and_after_a_file(
    store: Store, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    digest = store.add(make(seed=0), "digits")
    (tmp_path / "digits").mkdir()
    assert load_model("digits", store=store).hash == digest
    (tmp_path / "digits").rmdir()
    save_model(make(seed=1), tmp_path / "m.pt").rename(tmp_path / "digits")
    assert load_model("digits", store=store).hash == make(seed=1).hash


def test_what_is_nowhere(make: Any, tmp_path: Path) -> None:
    save_model(make(), tmp_path / "clf.pt")
    with pytest.raises(ModelError, match=r"no model file .*did you mean 'clf.pt'"):
        load_model(str(tmp_path / "clv.pt"))
    with pytest.raises(ModelError, match=r"no model 'nothing': it is no file, run folder, name in the store"):
        load_model("nothing")
    with pytest.raises(ModelError, match="it is an architecture, whose weights"):
        load_model("lenet")


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
    with pytest.raises(ModelError, match=r"'dense\.weight' is missing"):
        load_model(where, weights=weights, shape=(1, 8, 8))


def test_a_file_alone_does_not_run_a_users_function(user_module: str, store: Store, tmp_path: Path) -> None:
    where = f"{user_module}:Net"
    model = load_model(where, shape=(1, 8, 8), classes=10)
    path = save_model(model, tmp_path / "m.safetensors")
    store.add(model, "theirs")
    for bare in (path, "theirs"):
        with pytest.raises(ModelError, match=f"must not run code; .* --arch {where}"):
            load_model(bare, store=store)
        assert load_model(bare, arch=where, store=store).hash == model.hash
    assert load_model(where, weights=path).hash == model.hash


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nett", "did you mean 'Net'"),
        ("broken", "no such luck"),
        ("text", "returned str; it must return"),
        ("number", "is no function"),
    ],
)
def test_functions_that_make_no_model(name: str, said: str, user_module: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_model(f"{user_module}:{name}", shape=(1, 8, 8))


def test_modules_that_cannot_be_imported() -> None:
    with pytest.raises(ModelError, match=r"cannot import 'not_there.networks' \(ModuleNotFoundError"):
        load_model("not_there.networks:make")
    with pytest.raises(ConfigError, match="is an architecture itself; leave --arch out"):
        load_model("not_there.networks:make", arch="lenet")


@pytest.mark.parametrize("name", ["squeezenet1_1", "mnasnet0_5"])
def test_an_untrained_torchvision_network_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model = load_model(f"torchvision:{name}", weights="none", classes=7, shape=(3, 32, 32))
    assert (model.card.architecture, model.card.classes) == (f"torchvision:{name}", 7)
    again = load_model(save_model(model, tmp_path / "m.pt"))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(x), model(x))
    torch.save(model.network.state_dict(), tmp_path / "bare.pt")
    for bare in (
        load_model(f"torchvision:{name}", weights=tmp_path / "bare.pt", shape=(3, 32, 32)),
        load_model(tmp_path / "bare.pt", arch=f"torchvision:{name}", shape=(3, 32, 32)),
    ):
        assert bare.card.classes == 7
        assert "without normalisation were assumed" in bare.card.notes
        assert torch.equal(bare(x), model(x))


def test_torchvisions_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models as zoo

    state = zoo.squeezenet1_1(weights=None).state_dict()
    asked: dict[str, Any] = {}

    def fetch(url: str, **options: Any) -> Any:
        asked.update(options, url=url)
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    model = load_model("torchvision:squeezenet1_1", classes=10)
    assert asked["weights_only"]
    assert asked["check_hash"]
    card = model.card
    assert (card.shape, card.classes, len(card.labels)) == ((3, 224, 224), 1000, 1000)
    assert card.preprocessing.mean == (0.485, 0.456, 0.406)
    assert "torchvision" in card.notes
    said = load_model("torchvision:squeezenet1_1", mean=(0.5, 0.5, 0.5), shape=(3, 64, 64)).card
    assert said.preprocessing.mean == (0.5, 0.5, 0.5)
    assert "trained on images of 3x224x224" in said.notes


def test_torchvision_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ModelError, match=r"no route to host.*--weights"):
        load_model("torchvision:resnet18")


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("resnet", {}, "did you mean 'resnet"),
        ("resnet18", {}, "number of classes; pass --classes"),
        ("resnet18", {"classes": 10, "shape": (1, 28, 28)}, "3 channels, not 1"),
        ("vit_b_32", {"classes": 10, "shape": (3, 28, 28)}, "cannot take 28x28"),
    ],
)
def test_torchvision_faults(name: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_model(f"torchvision:{name}", weights="none", **more)
