"""The number and everything behind it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import advkit
from advkit.errors import ConfigError, DataError, ModelError
from advkit.evaluation.adversarial import Adversarial
from advkit.evaluation.plan import Evaluation
from advkit.evaluation.result import EvaluationResult
from advkit.runs import RunFolder
from advkit.threat import Threat

THREAT = Threat("linf", 0.03)
ATTACKS = ("noise", "fgsm", "pgd")
SHORT = {"pgd": {"steps": 8}, "noise": {"draws": 3}}


def run(model, data, **more):
    return advkit.evaluate(model, data, THREAT, ATTACKS, parameters=SHORT, **more)


def test_the_figures_agree_with_each_other_and_with_the_images(judged):
    model, data = judged
    result = run(model, data, keep=True)
    assert result.n == 30 and result.clean_correct == 28
    assert 0 < result.robust_correct < 28
    status = [verdict.status for verdict in result.verdicts]
    assert status.count("robust") == result.robust_correct
    assert status.count("misclassified") == 2
    assert sum(stage.broken for stage in result.stages) == status.count("broken")
    assert result.stages[0].attacked == 28
    for one, two in zip(result.stages, result.stages[1:], strict=False):
        assert two.attacked == one.correct_after
    with torch.no_grad():
        left = (model(result.adversarial).argmax(1) == data.labels).float().mean()
    assert float(left) == pytest.approx(result.robust_accuracy)
    assert THREAT.contains(result.adversarial, data.images).all()
    assert result.interval.low < result.robust_accuracy < result.interval.high


def test_noise_is_reported_beside_the_attacks(judged):
    result = run(*judged)
    noise, fgsm, pgd = result.stages
    assert noise.attack == "noise" and noise.backwards == 0
    assert noise.broken < fgsm.broken + pgd.broken


def test_reads_back_and_refuses_what_is_newer(judged):
    result = run(*judged)
    text = result.to_json()
    assert EvaluationResult.from_json(text) == result
    newer = json.dumps({**json.loads(text), "version": 99})
    with pytest.raises(DataError, match="newer advkit"):
        EvaluationResult.from_json(newer, "result.json")
    with pytest.raises(DataError, match="no result of advkit attack"):
        EvaluationResult.from_json("{}")
    with pytest.raises(DataError, match="is not JSON"):
        EvaluationResult.from_json("{")
    assert "<table>" in result._repr_html_()
    assert "robust accuracy" in str(result)


def test_any_module_and_any_tensors_are_welcome(judged):
    model, data = judged
    plain = nn.Sequential(model.network).train()
    result = advkit.evaluate(
        plain, ((data.images * 255).round().to(torch.uint8), data.labels), THREAT, attack="fgsm", n=12
    )
    assert result.n == 12 and result.status == "partial"
    assert plain.training


def test_batch_size_and_subset_change_nothing(judged):
    model, data = judged
    whole = run(model, data).verdicts
    assert run(model, data, batch_size=5).verdicts == whole
    assert run(model, data, n=11).verdicts == whole[:11]


def open_run(folder: Path) -> RunFolder:
    return RunFolder.open("attack", "toy", Evaluation(model="toy"), folder)


def interrupted(model, data, folder, after, monkeypatch):
    """An evaluation whose process ends without a word after so many verdicts."""
    from advkit.evaluation import ledger

    left = after
    add = ledger.Ledger.add

    class Killed(BaseException):
        pass

    def killing(self, entry, image):
        nonlocal left
        add(self, entry, image)
        left -= 1
        if left == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "add", killing)
        with pytest.raises(Killed), open_run(folder) as begun:
            run(model, data, run=begun)


@pytest.mark.parametrize("after", [1, 20, 45])
def test_goes_on_after_an_interruption(judged, tmp_path, monkeypatch, after):
    model, data = judged
    folder = tmp_path / "run"
    interrupted(model, data, folder, after, monkeypatch)
    with (folder / "verdicts.jsonl").open("a") as file:
        file.write('{"id": 3, "attack": "pgd", "bro')  # a line cut short
    with open_run(folder) as again:
        result = run(model, data, run=again)
    images = Adversarial(folder, data, result.verdicts)[torch.arange(len(data))]
    whole = run(model, data, keep=True)
    assert result.verdicts == whole.verdicts
    assert result.stages == whole.stages and result.forwards == whole.forwards
    assert torch.equal(images, whole.adversarial)


def test_survives_kill_9(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(KILLED)
    folder = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, str(script), str(folder), "7"], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len((folder / "verdicts.jsonl").read_text().splitlines()) == 8
    again = subprocess.run(
        [sys.executable, str(script), str(folder), "0"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    resumed, fresh = again.stdout.split()
    assert resumed == fresh


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
import advkit
from advkit.data.data import Data
from advkit.evaluation import ledger
from advkit.evaluation.plan import Evaluation
from advkit.runs import RunFolder
from advkit import rng

images = rng.uniform(torch.arange(12), (1, 8, 8))
with rng.scope("cpu", 0, "m"):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
data = Data("toy", "test", images, model(images).argmax(1), ("a", "b", "c"), torch.arange(12))
left = int(sys.argv[2])
add = ledger.Ledger.add

def killing(self, entry, image):
    global left
    add(self, entry, image)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

ledger.Ledger.add = killing
threat = advkit.Threat("linf", 0.05)
with RunFolder.open("attack", "toy", Evaluation(model="toy"), Path(sys.argv[1])) as run:
    resumed = advkit.evaluate(model, data, threat, "noise,pgd", run=run)
fresh = advkit.evaluate(model, data, threat, "noise,pgd")
for result in (resumed, fresh):
    print(*(f"{v.id}:{v.status}:{v.attack}:{v.iteration}:{v.distance}" for v in result.verdicts), sep=",")
"""


def test_another_model_in_the_same_folder_is_refused(judged, tmp_path, monkeypatch):
    model, data = judged
    interrupted(model, data, tmp_path / "run", 5, monkeypatch)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with (
        open_run(tmp_path / "run") as again,
        pytest.raises(ConfigError, match="did not begin with the same model"),
    ):
        run(other, data, run=again)


class Says(nn.Module):
    """Wraps what a network says."""

    def __init__(self, network, change):
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x):
        return self.change(self.network(x))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda z: z.softmax(1), "--outputs probabilities"),
        (lambda z: z * float("nan"), "NaN or infinite"),
        (lambda z: z + torch.randn_like(z), "--allow-random"),
        (lambda z: z[:, :3], "3 classes"),
        (lambda z: z.mean(1), "shape"),
    ],
)
def test_models_that_are_no_classifiers_are_refused(judged, change, sentence):
    model, data = judged
    with pytest.raises(ModelError, match=sentence):
        run(Says(model.network, change), data)


def test_labels_that_the_model_does_not_know(judged):
    model, data = judged
    with pytest.raises(DataError, match="label 9"):
        run(model.network, (data.images, torch.full((30,), 9)))


def test_tensors_need_not_show_every_class(judged):
    model, data = judged
    some = (data.labels < 2).nonzero()[:, 0]
    result = run(model, (data.images[some], data.labels[some]))
    assert result.n == len(some) > 0


def test_no_gradient_is_a_doubt_not_a_number_to_trust(judged):
    model, data = judged
    stepped = Says(lambda x: model.network((x > 0.5).float()), lambda z: z)
    result = advkit.evaluate(stepped, data, THREAT, "fgsm")
    doubts = {check.name for check in result.checks if check.verdict == "doubt"}
    assert "gradients" in doubts
    assert all(check.verdict == "ok" for check in run(model, data).checks)


def test_faults_of_the_options(judged):
    model, data = judged
    with pytest.raises(ConfigError, match="did you mean 'pgd'"):
        advkit.evaluate(model, data, THREAT, "pdg")
    with pytest.raises(ConfigError, match="unknown key 'stepz'"):
        advkit.evaluate(model, data, THREAT, "pgd", parameters={"pgd": {"stepz": 3}})
    with pytest.raises(ConfigError, match="parameters are given for fgsm"):
        advkit.evaluate(model, data, THREAT, "pgd", parameters={"fgsm": {}})
    with pytest.raises(ConfigError, match="pgd is named twice"):
        advkit.evaluate(model, data, THREAT, "pgd,fgsm,pgd")
    with pytest.raises(ConfigError, match="no customary threat model"):
        advkit.evaluate(model, data)
