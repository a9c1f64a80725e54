"""``advgan:NAME`` among the other attacks."""

import pytest
import torch

from advkit import evaluate, perturb
from advkit.attacks.attack import ATTACKS
from advkit.attacks.perturb import make, robust_correct
from advkit.core import rng
from advkit.core.errors import ConfigError, DataError, ModelError
from advkit.core.threat import Threat
from advkit.models.card import ModelCard, ThreatFacts
from advkit.models.checkpoint import save_model
from advkit.models.model import Model
from advkit.models.network import build

LINF = Threat("linf", 0.1)


def generator(seed=0, push=0.0, norm=None):
    """Its directions are biased by ``push``, up or down."""
    with rng.scope("cpu", seed, "made"):
        network = build("advgan-generator", shape=(1, 8, 8), config={"width": 4, "depth": 1})
    with torch.no_grad():
        network.up[-1].bias += push
    about = {"role": "perturbation-generator", "architecture": "advgan-generator", "shape": (1, 8, 8)}
    threat = norm and ThreatFacts(norm=norm, eps=0.1)
    card = ModelCard(**about, config={"width": 4, "depth": 1}, threat=threat)
    return Model(network, card).eval()


@pytest.fixture
def up(tmp_path):
    """The name of an attack that brightens images."""
    return f"advgan:{save_model(generator(push=9.0), tmp_path / 'up.pt')}"


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


def test_a_run_goes_on_only_with_the_same_generator(up, tmp_path, model, images):
    from advkit.core.config import StrictModel
    from advkit.core.runs import RunFolder

    def run():
        with RunFolder.open("attack", "toy", StrictModel(), tmp_path / "run") as folder:
            return evaluate(model, images(10), LINF, attack=up, run=folder)

    assert run().robust_correct == run().robust_correct
    save_model(generator(push=-9.0), tmp_path / "up.pt", overwrite=True)
    with pytest.raises(ConfigError, match="did not begin with the same plan of attack"):
        run()


def test_faults_are_told_before_the_work_begins(up, tmp_path, model, images):
    data = images(10)
    with pytest.raises(ConfigError, match="needs the name of a perturbation generator"):
        ATTACKS.entry("advgan:")
    with pytest.raises(ModelError, match="there is no model 'nobody'"):
        evaluate(model, data, LINF, attack="advgan:nobody")
    save_model(model, tmp_path / "clf.pt")
    with pytest.raises(ModelError, match="is a classifier, but a perturbation-generator is wanted"):
        make(f"advgan:{tmp_path / 'clf.pt'}", LINF)
    with pytest.raises(ConfigError, match="l1"):
        make(up, Threat("l1", 3))
    save_model(generator(norm="l2"), tmp_path / "l2.pt")
    with pytest.raises(ConfigError, match="was trained in l2, not in linf"):
        make(f"advgan:{tmp_path / 'l2.pt'}", LINF)
    from advkit.data.load import as_data

    large = as_data((torch.rand(4, 1, 9, 9), torch.tensor([0, 1, 0, 1])))
    with pytest.raises(DataError, match="takes 1x8x8 images but these are 1x9x9"):
        perturb(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(81, 2)),
            large.images,
            large.labels,
            LINF,
            up,
        )
