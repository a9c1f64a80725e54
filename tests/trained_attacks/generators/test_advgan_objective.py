"""Adversarial training against a generator that goes on learning."""

from pathlib import Path

import pytest
import torch

from advkit.commands.adv_train import run as adv_train
from advkit.core.config import validate
from advkit.core.context import Context
from advkit.core.errors import ConfigError
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.models.load import load_model
from advkit.models.model import weights_hash
from advkit.trained_attacks.generators.judge import misled
from advkit.trained_attacks.generators.objectives.advgan import AdvGanTraining
from advkit.training.loop import fit
from advkit.training.objective import Batch, Setting
from advkit.training.settings import AdversarialTraining, Fitting

LINF = Threat("linf", 0.1)
SMALL = {"generator": {"width": 4, "depth": 1}, "discriminator": {"channels": (4, 8)}, "rate": 1e-2}


def objective(**said):
    return AdvGanTraining(validate(AdvGanTraining.Config, {**SMALL, **said}, "test"))


def test_both_learn_and_the_generator_from_the_classifier_as_it_is(model, images):
    """Against a classifier that stands still the generator becomes an attack, with every update a little."""
    data = images()
    x, y = data.batch(torch.arange(len(data)))
    wanted = objective(eps_warmup=0)
    beside = wanted.companion(Setting(data.shape, (LINF,), 25, 0, torch.device("cpu")))
    rates = []
    for step in range(25):
        batch = Batch(data.ids, step, 25, seed=0, threat=LINF, companion=beside)
        loss, logits = wanted.gradients(model.train(), x, y, batch)
        assert loss.isfinite() and logits.shape == (60, 3)
        rates.append(float((logits.argmax(1) != y).float().mean()))
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert rates[0] < 0.3 and rates[-1] > 0.8
    assert (beside.games[LINF].step, all(module.training for module in model.modules())) == (25, True)
    (made,) = beside.models().values()
    assert misled(model.eval(), made, data, LINF, None).float().mean() > 0.8


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_weighs_adversarial_and_clean_images(model, images, share):
    data, wanted = images(), objective(clean_weight=share, eps_warmup=0)
    x, y = data.batch(torch.arange(len(data)))
    beside = wanted.companion(Setting(data.shape, (LINF,), 25, 0, torch.device("cpu")))
    loss, logits = wanted.loss(model.eval(), x, y, Batch(data.ids, 0, 25, 0, LINF, companion=beside))
    parts = torch.nn.functional.cross_entropy(logits, y), torch.nn.functional.cross_entropy(model(x), y)
    assert abs(parts[0] - parts[1]) > 1e-3
    assert loss.item() == pytest.approx(((1 - share) * parts[0] + share * parts[1]).item(), rel=1e-5)


def test_eps_grows_and_the_rounds_count():
    wanted = objective(updates=3, clean_weight=0)
    assert wanted.passes == (4, 4) and wanted.inner == (3, 3)
    beside = wanted.companion(Setting((1, 8, 8), (LINF,), 10, 0, torch.device("cpu")))
    x = torch.full((16, 1, 8, 8), 0.5)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    wanted = objective(updates=3, clean_weight=0, eps_warmup=1)
    wanted.gradients(
        network, x, torch.zeros(16).long(), Batch(torch.arange(16), 4, 10, 0, LINF, companion=beside)
    )
    assert beside.games[LINF].threat.eps == pytest.approx(0.05) and beside.games[LINF].step == 3


def test_an_interrupted_run_ends_with_the_same_generators(images, built, stopping, tmp_path):
    config = Fitting(epochs=4, batch_size=20, checks=4)
    threats = {"threat": LINF, "also": [Threat("l2", 0.9)], "union": "average"}

    def run(folder, **more):
        with RunFolder.open("test", "toy", config, tmp_path / folder) as opened:
            given = {"objective": objective(), "run": opened, **threats, **more}
            return fit(built("mlp", "classifier", 3, hidden=(8,)), config, images(), None, **given)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("cut", progress=stopping)
    again = run("cut")
    assert weights_hash(again.model.state_dict()) == weights_hash(whole.model.state_dict())
    assert list(again.companions) == ["advgan-linf", "advgan-l2"]
    hashes = [{name: each.hash for name, each in trained.companions.items()} for trained in (whole, again)]
    assert hashes[0] == hashes[1] and len(set(hashes[0].values())) == 2


def test_the_command_leaves_the_generator_as_an_attack(images, save_npz):
    save_npz(images(), images(40, 1))
    said = {"data": "npz:toy.npz", "arch": "mlp", "norm": "linf", "eps": 0.1, "objective": "advgan"}
    config = AdversarialTraining(**said, epochs=2, checks=2, parameters=SMALL, name="hard")
    outcome = adv_train(config, Context(out=Path("run")))
    assert outcome.result["beside"] == {"hard-advgan": "perturbation-generator"}
    assert "advkit attack --model run/model.safetensors --attack advgan:hard-advgan" in outcome.next
    generator = load_model("hard-advgan", role="perturbation-generator")
    (parent,) = generator.card.lineage
    assert (parent.relation, parent.name, parent.hash) == ("trained-against", "hard", load_model("hard").hash)
    assert load_model("run/advgan.safetensors").hash == generator.hash


def test_passes_follow_from_the_parameters():
    assert objective(clean_weight=0, updates=2).passes == (3, 3) and objective().passes == (3, 3)


def test_faults_are_told():
    for wrong in ({"generator": {"widht": 3}}, {"opponent": "lenett"}):
        with pytest.raises(ConfigError):
            objective(**wrong)
    with pytest.raises(ConfigError):
        objective().refuse(Threat("l1", 3))
