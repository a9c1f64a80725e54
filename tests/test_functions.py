"""The commands as Python functions."""

import inspect
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import advkit
from advkit import commands
from advkit.cli import recipes
from advkit.cli.app import app
from advkit.commands import COMMANDS
from advkit.core.errors import ConfigError
from advkit.functions import function
from advkit.gan.result import GanTrainingResult

TINY = {"steps": 4, "batch_size": 8, "sample_every": 4, "generator": {"channels": [8, 8, 8]}}


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVKIT_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_function_of_the_same_name(name):
    function = getattr(advkit, name.replace("-", "_"))
    assert callable(function) and function.__doc__
    if function.__module__ == "advkit":  # made of the command, so that its keywords are the options
        assert set(COMMANDS[name].config.model_fields) <= set(inspect.signature(function).parameters)


def test_a_gan_is_trained_and_sampled(tmp_path):
    run = advkit.gan_train(data="digits", progress=False, **TINY)
    assert run.figures["config"]["steps"] == 4 and run.to_dict() == run.figures
    assert run.result == GanTrainingResult.load(run.folder) and run.result.config["steps"] == 4
    assert {"generator", "discriminator", "ema"} <= set(run.models)
    assert [row["step"] for row in run.history] == [4]
    assert len(repr(run)) < 400 and "<table>" in run._repr_html_()
    drawn = advkit.gan_sample(model=str(run.folder / "ema.safetensors"), n=4, out="few.png")
    assert (tmp_path / "few.png") in [tmp_path / path for path in drawn.files]
    again = advkit.gan_train(data="digits", progress=False, **TINY)
    assert again.folder != run.folder and again.models["ema"].hash == run.models["ema"].hash


def test_a_module_and_data_in_hand():
    train, test = (advkit.load_data("digits", split, limit=60) for split in ("train", "test"))
    network = advkit.load_model(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), shape=(1, 8, 8)
    )
    before = network.hash
    given = {"data": {"train": train, "test": test}, "epochs": 1, "batch_size": 20, "holdout": 0}
    run = advkit.adv_train(model=network, norm="linf", eps=0.1, progress=False, **given)
    assert network.hash == before  # a copy was trained
    assert run.figures["config"]["model"].startswith("memory:") and run.figures["test"]["after"]["n"] == 60


BALL = {"norm": "linf", "eps": 0.1}
BRIEF = {
    "adv-train": {"epochs": 1, **BALL},
    "advgan-train": {"steps": 2, **BALL},
    "attack": {"attack": "fgsm", **BALL},
    "certify": {"norm": "linf", "eps": 0.01},
    "corrupt": {"corruptions": "brightness", "severities": "1"},
    "curve": {"norm": "linf"},
    "defence-eval": {"defence": "jpeg", "n": 4, **BALL},
    "detector-train": {"attack": "fgsm", "epochs": 1, **BALL},
    "natural": {"generator": "advkit:digits-gan", "n": 20, "steps": 2},
    "patch": {"target": 1, "steps": 1},
    "smooth": {"sigma": 0.1, "samples": 20},
    "spatial": {"random": 2},
    "substitute": {"queries": 8, "epochs": 1},
    "universal": {"steps": 1, **BALL},
}


@pytest.mark.parametrize(("name", "role"), [*((name, "model") for name in BRIEF), ("attack", "surrogate")])
def test_a_run_belongs_to_what_a_network_answers(name, role, tmp_path):
    """Code is in no hash of weights: here are two layers that answer alike, and one of other answers."""
    train, test = (advkit.load_data("digits", split, limit=20) for split in ("train", "test"))
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 10)
    asked = {"data": {"train": train, "test": test}, "out": tmp_path / "run", "progress": False}

    def run(last):
        network = torch.nn.Sequential(torch.nn.Flatten(), layer, last)
        return function(name)(**{"model": "advkit:digits-standard", role: network}, **BRIEF[name] | asked)

    assert run(torch.nn.Identity()).figures == run(torch.nn.Dropout()).figures
    with pytest.raises(ConfigError) as fault:
        run(torch.nn.ReLU())
    assert fault.value.code == "run-differs"


def test_one_value_stands_for_several():
    advkit.train(data="digits", arch="mlp", epochs=1, out="m.pt", progress=False)
    policy = 'data = "digits"\nn = 5\nattack = ["fgsm"]\n[[require]]\neps = 0.01\nclean = 0.99\nname = "a"\n'
    Path("policy.toml").write_text(policy, encoding="utf-8")
    run = advkit.gate(policy="policy.toml", model="m.pt", progress=False)
    assert not run.passed
    assert run.figures == advkit.gate(policy=["policy.toml"], model="m.pt", progress=False).figures
    with pytest.raises(ConfigError):
        advkit.gate(policy=True, model="m.pt")


def test_a_wrong_keyword_is_one_sentence_with_a_suggestion():
    with pytest.raises(ConfigError, match="batch_size"):
        advkit.gan_train(batchsize=8)


def test_progress_is_drawn_where_somebody_watches(capsys):
    advkit.gan_train(data="digits", progress=True, **TINY)
    assert "4 steps" in capsys.readouterr().err
    advkit.gan_train(data="digits", **TINY)
    assert capsys.readouterr().err == ""


FILE = """
'''Utter a word.'''
from advkit.core.config import StrictModel
from advkit.report.outcome import Outcome

GROUP = "Start"
EXAMPLE = "advkit utter --word hello"
FORMERLY = ("say",)


class Config(StrictModel):
    '''Utter a word.'''

    word: str = "hello"
    '''What to say.'''


def run(config, context):
    return Outcome(config.word, result={"said": config.word})
"""


@pytest.fixture
def one_file(tmp_path, monkeypatch):
    """A command, added as one file."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "utter.py").write_text(FILE)
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path / "more")])
    monkeypatch.setitem(commands.COMMANDS, "utter", commands.discover()["utter"])


def test_a_command_is_one_file(one_file, tmp_path):
    """It has flags, help, a function and recipes, and nothing else names it."""
    (tmp_path / "mine.toml").write_text('command = "utter"\nword = "a"\n')
    assert CliRunner().invoke(app, ["utter", "--word", "b", "--json", "-"]).stdout == '{\n  "said": "b"\n}\n'
    assert "What to say." in CliRunner().invoke(app, ["utter", "--help"]).output
    assert "utter" in CliRunner().invoke(app, ["--help"]).output
    assert advkit.utter(word="c").figures == {"said": "c"}
    command, config = recipes.load(tmp_path / "mine.toml")
    assert (command.name, config.word) == ("utter", "a")


def test_an_older_name_works_and_names_the_new_one(one_file, tmp_path, capsys):
    (tmp_path / "mine.toml").write_text('command = "say"\n')
    told = CliRunner().invoke(app, ["say", "--word", "b", "--json", "-"])
    assert '"said": "b"' in told.stdout and "advkit utter" in told.stderr
    assert advkit.say(word="c").figures == {"said": "c"} and "advkit utter" in capsys.readouterr().err
    assert recipes.load(tmp_path / "mine.toml")[0].name == "utter"
    assert "  say " not in CliRunner().invoke(app, ["--help"]).output
