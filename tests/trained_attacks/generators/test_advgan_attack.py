"""``advgan:NAME`` among the other attacks."""

import pytest
import torch

from advkit import evaluate, perturb
from advkit.attacks.attack import ATTACKS
from advkit.attacks.perturb import make, robust_correct
from advkit.core.config import StrictModel
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.core.runs import RunFolder
from advkit.core.threat import Threat
from advkit.models.card import ThreatFacts
from advkit.models.checkpoint import save_model

LINF = Threat("linf", 0.1)


@pytest.fixture
def save(built, tmp_path):
    """Saves a generator whose directions are biased by ``push``, up or down; returns the attack's name."""

    def save(name, push=0.0, norm=None):
        threat = norm and ThreatFacts(norm=norm, eps=0.1)
        made = built("advgan-generator", "perturbation-generator", about={"threat": threat}, width=4, depth=1)
        with torch.no_grad():
            made.network.up[-1].bias += push
        return f"advgan:{save_model(made, tmp_path / name, overwrite=True)}"

    return save


@pytest.fixture
def up(save):
    """The name of an attack that brightens images."""
    return save("up.pt", 9.0)


def test_it_is_judged_like_any_attack(up, model, images):
    data = images(40)
    result = evaluate(model, data, LINF, attack=["noise", up, "pgd"])
    noise, ours, pgd = result.stages
    assert result.clean_correct == 36 and noise.attacked == 36
    assert ours.name == up and ours.attacked == 36 - noise.broken
    assert ours.broken == sum(verdict.attack == up for verdict in result.verdicts)
    dark = sum(v.label == 0 and v.status != "misclassified" and v.attack != "noise" for v in result.verdicts)
    assert ours.broken == dark > 10  # those that brightening misleads
    assert (ours.forwards, ours.backwards) == (ours.attacked, 0)  # one pass each, to confirm
    assert pgd.attacked == ours.attacked - ours.broken and result.robust_correct == 0


def test_it_stays_inside_whatever_the_batch(up, model, images):
    data = images(40)
    for threat in (LINF, Threat("l2", 0.8)):
        x = perturb(model, data.images, data.labels, threat, up).x
        assert threat.contains(x, data.images).all() and not torch.equal(x, data.images)
        found = [robust_correct(model, data, threat, up, batch_size=size)[1].tolist() for size in (1, 7, 100)]
        assert found[0] == found[1] == found[2]


def test_a_run_goes_on_only_with_the_same_generator(up, save, tmp_path, model, images):
    def run():
        with RunFolder.open("attack", "toy", StrictModel(), tmp_path / "run") as folder:
            return evaluate(model, images(10), LINF, attack=up, run=folder)

    assert run().robust_correct == run().robust_correct
    save("up.pt", -9.0)
    with pytest.raises(ConfigError) as fault:
        run()
    assert fault.value.code == "run-differs"


def test_faults_are_told_before_the_work_begins(up, save, tmp_path, model, images):
    with pytest.raises(ConfigError):
        ATTACKS.entry("advgan:")
    with pytest.raises(ModelError) as fault:
        evaluate(model, images(10), LINF, attack="advgan:nobody")
    assert fault.value.code == "model-not-found"
    with pytest.raises(ModelError):
        make(f"advgan:{save_model(model, tmp_path / 'clf.pt')}", LINF)
    for name, threat in ((up, Threat("l1", 3)), (save("l2.pt", norm="l2"), LINF)):
        with pytest.raises(ConfigError):
            make(name, threat)
    large = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(81, 2))
    with pytest.raises(DataError):
        perturb(large, torch.rand(4, 1, 9, 9), torch.tensor([0, 1, 0, 1]), LINF, up)
